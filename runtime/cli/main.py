"""The ``ccnet`` program: it runs a command, prints an error as one line and sets the exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

# Nothing else here: everything is imported below main, where an interrupt is one line as well


class _Terminated(BaseException):
    """SIGTERM as an exception, so that what was begun is removed as after Ctrl-C."""


def main() -> None:
    """Run the command in ``sys.argv`` and exit.

    Exit codes: 0 success, 1 a failed check, 2 an error, printed as one line on stderr, 130 interrupted, 143 terminated.
    """
    with _SignalLines() as signals:
        _open_closed_streams()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
        signals.code = _exit_code(sys.argv[1:])
    sys.exit(signals.code)


class _SignalLines:
    """One line and an exit code for Ctrl-C and SIGTERM, whatever they interrupt."""

    code = 0

    def __enter__(self) -> _SignalLines:
        self._line = ""
        self._previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._terminate)}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a background job
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | _Terminated)
        if stopped:
            self.code = 143 if kind is _Terminated else 130
        if self._line and self.code in (130, 143):  # click makes 130 of Ctrl-C by itself
            print("ccnet:", self._line, file=sys.stderr)
        return stopped

    def _interrupt(self, *_: object) -> None:
        self._line = "interrupted"
        raise KeyboardInterrupt

    def _terminate(self, *_: object) -> None:
        self._line = "terminated"
        raise _Terminated


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that were closed, lest a file of the user take their number."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def _exit_code(arguments: list[str]) -> int:
    """Run a command, print its error as one line, and return the exit code."""
    import logging

    from ccnet.contract import CCNetError
    from ccnet.runtime.gpu.out_of_memory import is_out_of_memory

    from .errors import explain

    for library in ("PIL", "h5py", "libav", "matplotlib"):  # their messages go to the log, if there is one
        logging.getLogger(library).addHandler(logging.NullHandler())
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's exit
        return 1
    except (CCNetError, ImportError, MemoryError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        print("ccnet:", " ".join(explain(error).splitlines()), file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    import typer  # here, so that a machine without it reads which extra to install

    from ccnet.contract import CCNetError, NoManifestError

    from .app import build_app

    app, load_errors = build_app()
    command = typer.main.get_command(app)
    usage_error: Any = typer.BadParameter.__mro__[1]  # click's UsageError, of which newer versions carry a copy
    try:
        return command(arguments or ["--help"], prog_name="ccnet", standalone_mode=False) or 0
    except typer.Abort:
        raise KeyboardInterrupt from None
    except NoManifestError as error:
        raise CCNetError(f"{error}{_folder_parameter(command, arguments)}") from None
    except usage_error as error:
        context = error.ctx
        asked = context.command_path if context else _command_path(command, arguments)
        hint = f"see '{asked} --help'"
        notes = load_errors if context and context.parent is None else []
        raise CCNetError("; ".join([error.format_message().rstrip("."), hint, *notes])) from None


def _find_command(group: Any, arguments: list[str]) -> Any:
    """Return the command of a group that arguments name; None if they name none."""
    return next((group.commands[text] for text in arguments if text in group.commands), None)


def _command_path(group: Any, arguments: list[str]) -> str:
    """Return the names of the command that arguments call, as its usage has them."""
    command = _find_command(group, arguments)
    return f"ccnet {command.name}" if command else "ccnet"


def _folder_parameter(group: Any, arguments: list[str]) -> str:
    """Return how the command of these arguments names an artifact folder, in brackets; empty if it says so itself."""
    command: Any = _find_command(group, arguments)
    for parameter in command.params if command else ():
        if "--artifacts" in parameter.opts:
            return " (--artifacts)"
        if parameter.metavar == "FOLDER":
            return f" (ccnet {command.name} FOLDER)"
    return ""
