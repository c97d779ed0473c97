"""Open an artifact folder in a process of its own first: damaged engines may crash the library that loads them.

``Reconstructor.open`` trusts a manifest and verifies each file's SHA-256. The command line also expects a manifest that
vouches for damaged files.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.runtime.backends.select import BackendName, Precision, select
from ccnet.runtime.io.srgb import InputSpace

from .reconstructor import Reconstructor

_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|cannot allocate|failed to map segment|\bMemoryError", re.IGNORECASE
)

_REASON_PREFIX = "ccnet: "
"""Start of the line with the reason; libraries print lines of their own."""


def open_probed(
    folder: Path | ArtifactFolder,
    *,
    input_space: InputSpace | None = None,
    backend: BackendName = "auto",
    precision: Precision | None = None,
    tile: int | None = None,
    memory: int | None = None,
    device: int = 0,
    threads: int | None = None,
) -> Reconstructor:
    """Open a Reconstructor; if TensorRT or a GPU will load the files, let another process try first.

    ONNX Runtime on the CPU raises errors on damaged files and never crashed in the tests: it is opened at once.

    Args:
        folder: Path of the artifact folder, or the open folder.
        input_space: Colour space of all frames.
        backend: Library that runs the files.
        precision: Precision of ``decode`` and ``full``.
        tile: Side of all tiles, px; None: as large as memory allows.
        memory: Memory budget, bytes; None is the default.
        device: Index of the GPU, for all backends that use one.
        threads: CPU threads of ONNX Runtime; None is one per core.

    Returns:
        The Reconstructor.
    """
    selection = select(ArtifactFolder.open(folder), backend, precision, device)
    if selection.backend != "onnxruntime":
        probe_in_subprocess(selection.folder.path, selection.backend, selection.decode.precision, device)
    return Reconstructor.open_selection(selection, input_space=input_space, tile=tile, memory=memory, threads=threads)


def probe_in_subprocess(folder: Path, backend: str, precision: str, device: int = 0) -> None:
    """Open the folder and run a small frame in another process; a CCNetError if that fails or kills the process."""
    check_exit(folder, python_command(__name__, str(folder), backend, precision, str(device)))


def python_command(module: str, *arguments: str) -> list[str]:
    """Return a command that calls a module's ``main``; unlike ``-m`` it imports nothing from the current folder."""
    code = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; sys.exit(main(*sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]


def check_exit(folder: Path, command: list[str]) -> None:
    """Run a command that opens the folder.

    Args:
        folder: The artifact folder, for the message.
        command: The command and its arguments.

    Raises:
        CCNetError: The command failed or crashed; the message is one line.
    """
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if child.returncode == 0:
        return
    lines = child.stderr.splitlines()
    reasons = [line.removeprefix(_REASON_PREFIX) for line in lines if line.startswith(_REASON_PREFIX)]
    if child.returncode == 2 and reasons:
        raise CCNetError(reasons[-1])
    how = describe_exit(child.returncode)
    if memory_ran_out(child.returncode, child.stderr):
        raise CCNetError(f"{folder}: opening it ends the process ({how}), memory ran out: give less --memory")
    raise CCNetError(
        f"{folder}: opening it ends the process ({how}), its files are not what the manifest says: export and build it"
        " again"
    )


def memory_ran_out(code: int, said: str) -> bool:
    """Return True if a process died of a lack of memory, by its exit code and what it printed on stderr.

    The kernel kills with SIGKILL; under a limit, libraries abort or crash after an exception of their language.
    """
    return code == -signal.SIGKILL or (code != 0 and _OUT_OF_MEMORY.search(said) is not None)


def describe_exit(code: int) -> str:
    """Return the name of the signal that killed a process, or its exit code."""
    names = {int(number): number.name for number in signal.Signals}
    return names.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"


def main(folder: str, backend: Any, precision: Any, device: str) -> int:
    """Open the folder and run one small frame.

    Args:
        folder: Path of the artifact folder.
        backend: A BackendName.
        precision: A Precision.
        device: Index of the GPU.

    Returns:
        Exit code: 0 if the frame was reconstructed; 2 after a CCNetError, whose message goes to stderr.
    """
    try:
        options: dict[str, Any] = {"backend": backend, "precision": precision, "device": int(device)}
        with Reconstructor.open(folder, input_space="camera", **options) as reconstruct:
            frame = np.full((16, 16, 3), 128, np.uint8)
            reconstruct(frame)  # by the graph full, where there is one
            reconstruct(frame, reconstruct.encode(frame))
    except CCNetError as error:
        print(_REASON_PREFIX + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0
