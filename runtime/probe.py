"""Opens an artifact folder in a process of its own: what is damaged behind a manifest that lies may crash a library.

``Reconstructor.open`` trusts a manifest, whose SHA-256 it checks; the command line comes here first.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import CCNetError, Manifest, prefix_errors
from ccnet.runtime.backends.select import BackendName, Precision, select

from .reconstructor import Reconstructor

_SAYS = "ccnet: "
"""How the line with the reason begins; libraries print lines of their own."""


def open_probed(
    folder: Path, *, backend: BackendName = "auto", precision: Precision | None = None, window: int = 512
) -> Reconstructor:
    """``Reconstructor.open``, once a process of its own has survived it, where TensorRT or a GPU will see the files.

    ONNX Runtime on the CPU raises on what is damaged and never crashed in the tests: it is opened at once.
    """
    manifest = Manifest.read(folder)
    with prefix_errors(folder):
        chosen = select(manifest, backend, precision)
    if chosen.backend != "onnxruntime":
        probe_in_subprocess(folder, chosen.backend, chosen.decode.precision)
    return Reconstructor.open(folder, backend=backend, precision=precision, window=window)


def probe_in_subprocess(folder: Path, backend: str, precision: str) -> None:
    """CCNetError where opening the folder and a first small frame fail, or kill the process that tries."""
    check_exit(folder, python_command(__name__, str(folder), backend, precision))


def python_command(module: str, *arguments: str) -> list[str]:
    """A command that calls a module's ``main``; unlike ``-m`` it imports nothing from the current folder."""
    code = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; sys.exit(main(*sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]


def check_exit(folder: Path, command: list[str]) -> None:
    """Run a command that opens the folder; CCNetError, in one line, unless it ends well."""
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if child.returncode == 0:
        return
    reasons = [line.removeprefix(_SAYS) for line in child.stderr.splitlines() if line.startswith(_SAYS)]
    if child.returncode == 2 and reasons:
        raise CCNetError(reasons[-1])
    raise CCNetError(
        f"{folder}: opening it ends the process ({describe_exit(child.returncode)}), its files are not what"
        " the manifest says: export and build it again"
    )


def describe_exit(code: int) -> str:
    """The signal that a process died of, or its exit code."""
    known = {int(one): one.name for one in signal.Signals}
    return known.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


def main(folder: str, backend: Any, precision: Any) -> int:
    """Exit code: 0 opened and run, 2 refused, with the reason on stderr."""
    try:
        with Reconstructor.open(folder, backend=backend, precision=precision) as reconstruct:
            reconstruct(np.full((16, 16, 3), 128, np.uint8))
    except CCNetError as error:
        print(_SAYS + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
