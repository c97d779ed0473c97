"""Builds an engine in a process of its own: some damaged graphs crash TensorRT's parser.

That process prints a line of JSON for each step, and at the end its report or why it refuses; not pickle, as hostile
bytes have been in it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, decode_errors_as, partial_path
from ccnet.runtime.probe import describe_exit, python_command

from .builder import EngineReport, Progress, Tensor, build_engine


def build_isolated(
    onnx_path: Path, out_path: Path, *, progress: Progress | None = None, **options: Any
) -> EngineReport:
    """What ``build_engine`` does and raises; where the graph kills the process that builds, a CCNetError says so."""
    request = json.dumps([str(onnx_path), str(out_path), options], default=os.fspath)
    command = python_command(__name__, request)
    # What the libraries print is not for the user: the reason comes with the rest
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        try:
            last = _listen(child.stdout or (), progress)
            child.wait()
        except BaseException:  # what progress raised, or Ctrl-C
            child.kill()
            raise
        finally:
            child.wait()
            partial_path(out_path).unlink(missing_ok=True)
    if "refused" in last:
        raise CCNetError(last["refused"])
    if "report" not in last:
        how = describe_exit(child.returncode)
        why = "memory ran out: build with less --memory" if how == "SIGKILL" else "it is damaged: export it again"
        raise CCNetError(f"{onnx_path}: building an engine of it ends the process ({how}), {why}")
    return _report(last["report"])


def main(request: str) -> int:
    """Exit code: 0 built, 2 refused; which of them, and all else, is said in JSON."""
    source, target, options = json.loads(request)
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no JSON

    def tell(message: object) -> None:
        print(json.dumps(message), file=told, flush=True)

    try:
        with decode_errors_as(Path(source), "a graph made by 'ccnet export'"):
            report = build_engine(Path(source), Path(target), progress=lambda *step: tell(step), **_typed(**options))
    except CCNetError as error:
        tell({"refused": str(error)})
        return 2
    tell({"report": asdict(report)})
    return 0


def _listen(lines: Iterable[str], progress: Progress | None) -> dict[str, Any]:
    """Pass the steps on; the message that is none, or nothing."""
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


def _typed(*, shapes: dict[str, Any], timing_cache: str | None = None, **others: Any) -> dict[str, Any]:
    """Options as they were before they became JSON."""
    ranges = {name: tuple(map(tuple, bounds)) for name, bounds in shapes.items()}
    return {**others, "shapes": ranges, "timing_cache": Path(timing_cache) if timing_cache else None}


def _report(raw: dict[str, Any]) -> EngineReport:
    tensors = (
        Tensor(**{**one, "shape": tuple(one["shape"]), "range": one["range"] and tuple(map(tuple, one["range"]))})
        for one in raw["io"]
    )
    return EngineReport(**{**raw, "io": tuple(tensors)})
