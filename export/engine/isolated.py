"""Build an engine in a process of its own: some damaged graphs crash TensorRT's parser.

That process prints a line of JSON for each step, and at the end its report or why it refuses. It is not pickle, since
hostile bytes have been in that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, decode_errors_as, make_folder
from ccnet.runtime.probe import describe_exit, python_command

from .builder import BuildOptions, build_engine
from .monitor import Progress
from .report import EngineReport, Tensor


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
        last, code = _run(json.dumps([str(onnx_path), str(target), asdict(options)], default=os.fspath), progress)
        if "refused" in last:
            raise CCNetError(last["refused"])
        if "report" not in last:
            how = describe_exit(code)
            why = "memory ran out: build with less --memory" if how == "SIGKILL" else "it is damaged: export it again"
            raise CCNetError(f"{onnx_path}: building an engine of it ends the process ({how}), {why}")
        target.replace(out_path)
    return _report(last["report"])


def _run(request: str, progress: Progress | None) -> tuple[dict[str, Any], int]:
    """Run the process, and return its last message and its exit code."""
    # The output of the libraries is not for the user: the reason comes as a message
    with subprocess.Popen(  # noqa: S603
        python_command(__name__, request),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        try:
            last = _listen(child.stdout or (), progress)
            return last, child.wait()
        except BaseException:  # what progress raised, or Ctrl-C
            child.kill()
            raise


def main(request: str) -> int:
    """Build what a request in JSON asks for, report in JSON, and return the exit code: 0 built, 2 refused."""
    source, target, options = json.loads(request)
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no JSON

    def send(message: object) -> None:
        print(json.dumps(message), file=messages, flush=True)

    try:
        with decode_errors_as(Path(source), "a graph from 'ccnet export'"):
            report = build_engine(Path(source), Path(target), _options(**options), progress=lambda *step: send(step))
    except CCNetError as error:
        send({"refused": str(error)})
        return 2
    send({"report": asdict(report)})
    return 0


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
