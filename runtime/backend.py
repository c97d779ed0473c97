"""What runs a graph or an engine, and which one does in a given folder on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, get_args

from numpy.typing import NDArray

from ccnet.contract import Artifact, CCNetError, Manifest

from . import trt
from .cuda import gpus, has_gpu
from .onnxruntime_backend import OnnxRuntimeBackend, Provider
from .tensorrt_backend import TensorRTBackend

BackendName = Literal["auto", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp16", "fp32"]

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

    def open(self, data: bytes, threads: int | None = None) -> Backend:
        """Load a file's content, whose SHA-256 must have been checked."""
        if self.backend in _FLAVOURS:
            return TensorRTBackend(data, backend=_FLAVOURS[self.backend])
        return OnnxRuntimeBackend(data, provider=_PROVIDERS[self.backend], threads=threads)


def select(manifest: Manifest, backend: BackendName = "auto", precision: Precision | None = None) -> Selection:
    """What to run. A backend that was asked for is never replaced by another: CCNetError says what it lacks.

    ``auto`` is an engine of the folder whose library loads here beside a GPU, or else ONNX Runtime on the CPU.
    Precision None means the engine's own (FP16 where there are both), and FP32 in ONNX Runtime.
    """
    if backend == "auto":
        backend = _best(manifest, precision)
    if backend in _FLAVOURS:
        return _select_engine(manifest, backend, precision)
    if backend in _PROVIDERS:
        decode = manifest.find("decode", precision=precision or "fp32")
        return Selection(backend=backend, encode=manifest.find("encode"), decode=decode)
    raise CCNetError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")


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
