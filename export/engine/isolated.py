"""Build an engine in a process of its own: some damaged graphs crash TensorRT's parser.

That process prints a line of JSON for each step, and at the end its report or why it refuses. It is not pickle, since
hostile bytes have been in that process.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, decode_errors_as, make_folder
from ccnet.runtime.probe import describe_exit, memory_ran_out, python_command

from .builder import BuildOptions, build_engine
from .monitor import Progress
from .report import EngineReport, Tensor

_logger = logging.getLogger(__name__)

_LAST_BYTES = 1 << 16


def build_isolated(
    onnx_path: Path, out_path: Path, options: BuildOptions, *, progress: Progress | None = None
) -> EngineReport:
    """Build an engine as ``build_engine`` does, in a process of its own.

    Args:
        onnx_path: The graph.
        out_path: Where the engine goes.
        options: How to build it.
        progress: As in ``build_engine``.

    Returns:
        The report.

    Raises:
        CCNetError: As ``build_engine``; also where the graph kills the process that builds.
    """
    make_folder(out_path.parent)
    # A folder of its own, which takes everything with it that a killed process leaves
    with tempfile.TemporaryDirectory(prefix=".ccnet-", dir=out_path.parent) as private:
        target = Path(private, out_path.name)
        last, code, said = _run(json.dumps([str(onnx_path), str(target), asdict(options)], default=os.fspath), progress)
        if "refused" in last:
            raise CCNetError(last["refused"])
        if "report" not in last:
            why = "it is damaged: export it again"
            if memory_ran_out(code, said):
                why = "memory ran out: build with less --memory, or allow the process more (ulimit, control group)"
            raise CCNetError(f"{onnx_path}: building an engine of it ends the process ({describe_exit(code)}), {why}")
        target.replace(out_path)
    return _report(last["report"])


def _run(request: str, progress: Progress | None) -> tuple[dict[str, Any], int, str]:
    """Run the process, and return its last message, its exit code and the end of what its libraries printed."""
    # The output of the libraries is for the log: the reason comes as a message
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(  # noqa: S603
            python_command(__name__, request),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        ) as child,
    ):
        try:
            last = _listen(child.stdout or (), progress)
            code = child.wait()
        except BaseException:  # what progress raised, or Ctrl-C
            child.kill()
            raise
        output.seek(max(0, output.seek(0, os.SEEK_END) - _LAST_BYTES))
        said = output.read().decode(errors="replace")
    _logger.debug("the process that builds printed: %s", said)
    return last, code, said


def main(request: str) -> int:
    """Build what a request in JSON asks for, report in JSON, and return the exit code: 0 built, 2 refused."""
    source, target, options = json.loads(request)
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no JSON

    def send(message: object) -> None:
        print(json.dumps(message), file=messages, flush=True)

    try:
        with decode_errors_as(Path(source), "a graph from 'ccnet export'"), _memory_errors(Path(source)):
            report = build_engine(Path(source), Path(target), _options(**options), progress=lambda *step: send(step))
    except CCNetError as error:
        send({"refused": str(error)})
        return 2
    send({"report": asdict(report)})
    return 0


@contextmanager
def _memory_errors(source: Path) -> Iterator[None]:
    """Turn a MemoryError into a CCNetError that does not blame the graph."""
    try:
        yield
    except MemoryError as error:
        raise CCNetError(f"{source}: memory ran out while its engine was built: build with less --memory") from error


def _listen(lines: Iterable[str], progress: Progress | None) -> dict[str, Any]:
    """Pass the steps on to ``progress``, and return the message after them, empty if the process died before."""
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            break  # cut short, as the process died
        if isinstance(message, dict):
            return message
        if progress is not None:
            progress(*message)
    return {}


def _options(
    *, shapes: dict[str, Any], timing_cache: str | None, capability: list[int] | None, **others: Any
) -> BuildOptions:
    """Return options with the types that they had before they became JSON."""
    ranges: dict[str, Any] = {name: tuple(map(tuple, bounds)) for name, bounds in shapes.items()}
    named: Any = tuple(capability) if capability else None
    cache = Path(timing_cache) if timing_cache else None
    return BuildOptions(**others, shapes=ranges, timing_cache=cache, capability=named)


def _report(raw: dict[str, Any]) -> EngineReport:
    """Return the report with the types that it had before it became JSON."""
    tensors = (
        Tensor(
            **{**entry, "shape": tuple(entry["shape"]), "range": entry["range"] and tuple(map(tuple, entry["range"]))}
        )
        for entry in raw["io"]
    )
    kernels = {part: tuple(counts) for part, counts in raw["kernels"].items()}
    return EngineReport(**{**raw, "io": tuple(tensors), "kernels": kernels})
