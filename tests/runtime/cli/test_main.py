"""The ``ccnet`` program: help, version, commands of other packages, errors and exit codes."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import typer.core

from ccnet import __version__
from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, install_command
from ccnet.runtime.cli.app import build_app

Ccnet = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("--nonsense", "--nonsense"),
        ("simulate cave:x --exposure 1", "Option '--exposure' requires 2 arguments; see 'ccnet simulate --help'"),
    ],
)
def test_unknown_commands_and_options_are_one_line(
    ccnet: Ccnet, arguments: str, words: str, assert_refused: Any
) -> None:
    assert_refused(ccnet(*arguments.split()), words)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("build nowhere", "or name another (ccnet build FOLDER)"),
        ("check nowhere", "or name another (ccnet check FOLDER)"),
        ("plan photo.png --artifacts nowhere", "or name another (--artifacts)"),
        ("inspect nowhere", "or name another"),
    ],
)
def test_missing_folder_is_named_as_its_command_takes_it(
    work: Path, ccnet: Ccnet, arguments: str, hint: str, assert_refused: Any
) -> None:
    Path("nowhere").mkdir()
    result = ccnet(*arguments.split())
    assert_refused(result, "nowhere: no manifest.json; expected a folder")
    assert result.err.endswith(f"{hint}\n")


@pytest.mark.parametrize("command", ["", "reconstruct", "inspect"])
def test_help_shows_usage_and_commands(ccnet: Ccnet, command: str) -> None:
    result = ccnet(*command.split(), "--help")
    assert result.code == 0 and result.err == ""
    assert f"Usage: ccnet {command}".rstrip() in result.out
    if command == "":
        assert {"reconstruct", "inspect"} <= set(result.out.split())


def test_usage_of_every_command_is_plain() -> None:
    """No usage line has brackets around an argument that is required, and no default is a path of the installation."""
    commands = [typer.main.get_command(build_app()[0])]
    installed = str(SHIPPED_WEIGHTS.parents[1])
    count = 0
    while commands:
        command: Any = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            count += 1
            assert not (parameter.required and str(parameter.metavar or "").startswith("[")), (command.name, parameter)
            shown = parameter.show_default if isinstance(parameter, typer.core.TyperOption) else True
            assert not (shown and installed in str(parameter.default)), (command.name, parameter)
    assert count > 100


def test_no_command_shows_the_help(ccnet: Ccnet) -> None:
    assert ccnet() == ccnet("--help")


def test_version_is_parsed_to_numbers(ccnet: Ccnet) -> None:
    assert ccnet("--version") == (0, f"ccnet {__version__}\n", "")


class Entry(NamedTuple):
    """A stub of an installed entry point."""

    name: str
    load: Callable[[], typer.Typer]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], typer.Typer]], None]:
    """plug(load): make this the only entry point of the commands of other packages."""

    def install(load: Callable[[], typer.Typer]) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry("plugin", load)])

    return install


def command(body: Callable[[], None]) -> Callable[[], typer.Typer]:
    app = typer.Typer()
    app.command("go")(body)
    return lambda: app


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        """Raise the error."""
        raise error

    return body


def test_commands_of_other_packages_are_added(plug: Any, ccnet: Ccnet) -> None:
    plug(command(lambda: print("gone")))
    assert ccnet("go") == (0, "gone\n", "")
    assert ccnet("go") == (0, "gone\n", "")
    assert {"go", "reconstruct", "inspect"} <= set(ccnet("--help").out.split())


def test_missing_package_error_says_what_to_install(plug: Any, ccnet: Ccnet, assert_refused: Any) -> None:
    def load() -> typer.Typer:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    plug(load)
    hint = 'torch is not installed: pip install ".[train]"'
    assert hint in " ".join(ccnet("--help").out.split())
    assert_refused(ccnet("train"), hint)
    assert_refused(ccnet("inspect", "nothing.png"), "nothing.png: no such file")


OUT_OF_MEMORY = "ccnet: out of memory: use a smaller frame or tile, or in training a smaller --batch or --patch\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CCNetError("first\nsecond"), 2, "ccnet: first second\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "ccnet: x.png: No such file or directory\n"),
        (OSError("disk on fire"), 2, "ccnet: disk on fire\n"),
        (MemoryError(), 2, OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 2, OUT_OF_MEMORY),
        (ModuleNotFoundError(name="onnx_ir.x"), 2, 'ccnet: onnx_ir.x is not installed: pip install ".[export]"'),
        (ModuleNotFoundError(name="onnx"), 2, f"ccnet: onnx is not installed: {install_command('export')}\n"),
        (ImportError("libGL.so.1 is missing"), 2, "ccnet: libGL.so.1 is missing\n"),
        (typer.Exit(1), 1, ""),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
    ],
)
def test_error_becomes_one_line_and_an_exit_code(
    plug: Any, ccnet: Ccnet, error: BaseException, code: int, said: str
) -> None:
    plug(command(raising(error)))
    result = ccnet("go")
    assert result.code == code and result.out == ""
    assert result.err.startswith(said) and result.err.count("\n") == bool(said)


def test_without_typer_the_extra_is_named(ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch, assert_refused: Any) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert_refused(ccnet("--help"), 'typer is not installed: pip install ".[cli]"')


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from ccnet.runtime.cli.main import main
sys.argv = ["ccnet", "--help"]
try: main()
finally: print([m for m in ("torch", "onnx", "onnxruntime", "matplotlib", "cv2", "h5py", "PIL") if m in sys.modules])
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_closed_output_pipe_prints_no_traceback() -> None:
    code = """
import os, sys
from ccnet.runtime.cli.main import main
end, start = os.pipe()
os.close(end)
os.dup2(start, 1)
sys.argv = ["ccnet", "--help"]
main()
"""
    result = python(code)
    assert result.stderr == "" and result.returncode == 1


def test_paths_outside_the_terminals_encoding_are_printed_escaped(work: Path) -> None:
    code = """
import sys
from ccnet.runtime.cli.main import main
sys.argv = ["ccnet", "reconstruct", "photo.png", "-o", "\\udcff×.npy"]
main()
"""
    result = python(code, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert result.returncode == 0 and result.stdout.startswith("\\udcff\\xd7.npy: 70\\xd740 px"), result


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("moment", ["numpy", "typer", "ccnet.runtime.reconstructor", "frame"])
def test_signal_at_any_moment_is_one_line_and_leaves_nothing(
    work: Path, number: signal.Signals, code: int, said: str, moment: str
) -> None:
    """The program sends itself the signal while it imports a module, or while it writes a cube."""
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with SIGINT ignored
moment, number = sys.argv[1], int(sys.argv[2])
sys.argv[:3] = ["ccnet"]
class Finder:
    def find_spec(self, name, *_):
        if name == moment:
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder())
from ccnet.runtime.cli.main import main
if moment == "frame":
    from ccnet.runtime import Reconstructor
    def parts(self, frame, context=None):
        os.kill(os.getpid(), number)
        yield from ()
    Reconstructor.parts = parts
main()
"""
    command = [sys.executable, "-c", program, moment, str(int(number)), "reconstruct", "photo.png", "-o", "c/photo.hdr"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (code, f"ccnet: {said}\n")
    assert not [path for path in work.rglob("*photo.*") if path.suffix != ".png"] and not list(work.rglob(".ccnet*"))
