"""What runs a graph or an engine, and which one does in a given folder on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from ccnet.contract import NATIVE_FORMAT, Artifact, CCNetError, Manifest

from . import trt_api as trt
from .cuda import gpus, has_gpu
from .onnxruntime import OnnxRuntimeBackend, Provider, operators, refuse_external
from .tensorrt import TensorRTBackend

BackendName = Literal["auto", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp16", "int8", "fp32"]

_PROVIDERS: dict[str, Provider] = {
    "onnxruntime": "cpu",
    "onnxruntime-cuda": "cuda",
    "onnxruntime-tensorrt": "tensorrt",
}
_FLAVOURS: dict[str, trt.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


class Backend(Protocol):
    """Runs one graph; use it in ``with`` or call ``close``, which may be done twice."""

    name: str
    """Library, version and device, for reports."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, the caller's to keep. CCNetError names an input whose dtype or shape does not fit."""

    def close(self) -> None: ...

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The backend that was chosen (never ``auto``) and the two files of a folder that it runs."""

    backend: str
    encode: Artifact
    decode: Artifact

    def open(
        self, artifact: Artifact, data: bytes, folder: Path, manifest: Manifest, threads: int | None = None
    ) -> Backend:
        """Load one of the two from its content, whose SHA-256 must have been checked.

        CCNetError for an engine that was built for another version or GPU.
        """
        if self.backend in _PROVIDERS:
            return OnnxRuntimeBackend(data, provider=_PROVIDERS[self.backend], threads=threads)
        flavour, details = _FLAVOURS[self.backend], artifact.details
        _check_machine(flavour, details)
        weights = _weights(folder, manifest, artifact) if details.get("stripped") else None
        kernels = folder / f"{artifact.file}.kernels"
        return TensorRTBackend(
            data,
            backend=flavour,
            # Where it cannot be kept, kernels are compiled each time
            runtime_cache=kernels if flavour == "tensorrt_rtx" and os.access(folder, os.W_OK) else None,
            weights=weights,
            compatible=details.get("compatible") is True,
        )


def _weights(folder: Path, manifest: Manifest, engine: Artifact) -> bytes:
    """The graph that an engine without weights takes them from."""
    graph = manifest.find(engine.kind, precision=engine.precision)
    data = graph.read(folder)
    refuse_external(graph.file, data)
    return data


def select(manifest: Manifest, backend: BackendName = "auto", precision: Precision | None = None) -> Selection:
    """What to run. A backend that was asked for is never replaced by another: CCNetError says what it lacks.

    ``auto`` is an engine of the folder whose library loads here beside a GPU, or else ONNX Runtime on the CPU.
    Precision None means the engine's own (FP16 where there are several), and FP32 in ONNX Runtime.
    """
    if backend == "auto":
        backend = _best(manifest, precision)
    if backend in _FLAVOURS:
        return _select_engine(manifest, backend, precision)
    if backend in _PROVIDERS:
        return _select_graphs(manifest, backend, precision or "fp32")
    raise CCNetError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")


def _select_graphs(manifest: Manifest, backend: str, precision: Precision) -> Selection:
    """On a CPU in FP32, the graphs with our operators, where the folder has both and they are compiled here."""
    native = {one.kind: one for one in manifest.artifacts if one.format == NATIVE_FORMAT}
    if backend == "onnxruntime" and precision == "fp32" and operators() and native.keys() >= {"encode", "decode"}:
        return Selection(backend=backend, encode=native["encode"], decode=native["decode"])
    decode = manifest.find("decode", precision=precision)
    return Selection(backend=backend, encode=manifest.find("encode"), decode=decode)


def _check_machine(flavour: trt.Name, details: Mapping[str, Any]) -> None:
    """TensorRT may crash on what was built for another version or GPU, so it never sees that."""
    built, here = str(details.get("version")), trt.load(flavour).__version__
    if built != here and details.get("compatible") is not True:
        raise CCNetError(f"built with {flavour} {built}, this is {here}: ccnet build, or build with --compatible")
    gpu = details.get("gpu")
    if gpu and gpu not in gpus() and details.get("compatible") is not True:
        raise CCNetError(f"built for {gpu}, this is {gpus()[0]}: ccnet build, or build with --compatible")


def _best(manifest: Manifest, precision: Precision | None) -> BackendName:
    for name in ("tensorrt", "tensorrt-rtx"):
        flavour = _FLAVOURS[name]
        if _engines(manifest, flavour, precision) and has_gpu() and flavour in trt.available():
            return name
    return "onnxruntime"


def _select_engine(manifest: Manifest, backend: BackendName, precision: Precision | None) -> Selection:
    trt.load(_FLAVOURS[backend])
    gpus()
    engines = _engines(manifest, _FLAVOURS[backend], precision)
    if engines is None:
        what = f"{precision} engines" if precision else "engines"
        raise CCNetError(
            f"the folder has no encode and decode {what} of {backend}: ccnet build FOLDER --backend {backend}"
        )
    return Selection(backend=backend, encode=engines[0], decode=engines[1])


def _engines(manifest: Manifest, flavour: trt.Name, precision: Precision | None) -> tuple[Artifact, Artifact] | None:
    """Encode engine, always FP32 for its sums over all pixels, and decode engine; None unless there are both."""
    found = {(a.kind, a.precision): a for a in manifest.artifacts if a.format == flavour}
    encode = found.get(("encode", "fp32"))
    precisions = (precision,) if precision else get_args(Precision)
    decode = next((found["decode", p] for p in precisions if ("decode", p) in found), None)
    return (encode, decode) if encode and decode else None
