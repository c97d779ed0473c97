"""``ccnet``, the command line: gathers the packages' commands and turns what goes wrong into one line."""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import sys
from typing import Any

from ccnet.contract import CCNetError
from ccnet.runtime.backends.out_of_memory import is_out_of_memory

_DISTRIBUTION = "ccnet-hsi"


def main() -> None:
    """Run the command of ``sys.argv``.

    Exit codes: 0 done, 1 a check that failed, 2 an error in one line on stderr, 130 interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal's encoding does not
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's exit
        code = 1
    except KeyboardInterrupt:
        code = 130
    except (CCNetError, ImportError, MemoryError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        print("ccnet:", " ".join(_explain(error).splitlines()), file=sys.stderr)
        code = 2
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    import typer

    app, lacking = _app()
    usage_error: Any = typer.BadParameter.__mro__[1]  # click's UsageError, of which newer versions carry a copy
    try:
        return typer.main.get_command(app)(arguments or ["--help"], prog_name="ccnet", standalone_mode=False) or 0
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        context = error.ctx
        help = f"see '{context.command_path if context else 'ccnet'} --help'"
        notes = lacking if context and context.parent is None else []
        raise CCNetError("; ".join([error.format_message().rstrip("."), help, *notes])) from None


def _app() -> tuple[Any, list[str]]:
    """All commands side by side, and what to say of the packages whose commands cannot be loaded here."""
    import typer

    from . import reconstruct as commands
    from . import stream as stream_commands

    apps, lacking = [commands.app, stream_commands.app], []
    for entry in importlib.metadata.entry_points(group="ccnet.commands"):
        try:
            apps.append(entry.load())
        except ImportError as error:
            lacking.append(f"the commands of {entry.name} are not here: {_explain(error)}")
    app = typer.Typer(
        help="31-band hyperspectral cubes (400-700 nm) from RGB frames, from training to an engine in a camera.",
        epilog="\n\n".join(lacking) or None,
        callback=commands.root,
        add_completion=False,
        rich_markup_mode=None,  # it would take the extras' brackets for markup
        pretty_exceptions_enable=False,
    )
    for each in apps:
        app.registered_commands += each.registered_commands
        app.registered_groups += each.registered_groups
    return app, lacking


def _explain(error: Exception) -> str:
    if is_out_of_memory(error) and not isinstance(error, CCNetError):
        return "out of memory: take a smaller frame or window, or in training a smaller --batch or --patch"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name and (extra := _extra(error.name)):
        return f"{error.name} is not installed: pip install '{_DISTRIBUTION}[{extra}]'"
    return str(error) or type(error).__name__


def _extra(module: str) -> str | None:
    """The extra that brings a module, by the installed package's own metadata."""
    package = re.escape(module.partition(".")[0].replace("_", "-"))
    requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    matches = (re.match(rf"{package}(?![\w-]).*;\s*extra == [\"']([\w-]+)", line) for line in requirements)
    return next((match[1] for match in matches if match), None)
