"""The choice of a backend, and of the files that it runs, for an artifact folder on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ccnet.contract import NATIVE_FORMAT, Artifact, ArtifactFolder, CCNetError, Manifest, prefix_errors
from ccnet.runtime.gpu.cuda import Device, gpu, has_gpu
from ccnet.runtime.gpu.scratch import Scratch

from . import architectures, trt_plugin
from . import trt_api as trt
from .base import Backend
from .onnxruntime import OnnxRuntimeBackend, Provider, cuda_refusal, operators, refuse_external
from .tensorrt import TensorRTBackend
from .trt_engine import Engine

BackendName = Literal["auto", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp16", "int8", "fp32"]

_PROVIDERS: dict[str, Provider] = {
    "onnxruntime": "cpu",
    "onnxruntime-cuda": "cuda",
    "onnxruntime-tensorrt": "tensorrt",
}
_TENSORRT_VARIANTS: dict[str, trt.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A backend, and the files of an artifact folder that it runs.

    Attributes:
        folder: The artifact folder.
        backend: A BackendName, but never ``auto``.
        encode: Entry of the file for ``encode``.
        decode: Entry of the file for ``decode``.
        why: Why it is this backend, in one line.
        full: Entry of the file for ``full``. None: every frame takes two passes, ``encode`` and then ``decode``.
        device: Index of the GPU, for all backends that use one.
    """

    folder: ArtifactFolder
    backend: str
    encode: Artifact
    decode: Artifact
    why: str = "it was asked for"
    full: Artifact | None = None
    device: int = 0

    def open(
        self, artifact: Artifact, data: bytes, threads: int | None = None, scratch: Scratch | None = None
    ) -> Backend:
        """Load one of the files; a CCNetError if an engine was built for another version or GPU.

        Args:
            artifact: Entry of the file.
            data: Content of the file, whose SHA-256 the caller has verified.
            threads: CPU threads of ONNX Runtime; None is one per core.
            scratch: Scratch memory of engines, to share among backends that never run at the same time.

        Returns:
            The backend, which the caller must close.
        """
        if self.backend in _PROVIDERS:
            provider = _PROVIDERS[self.backend]
            return OnnxRuntimeBackend(data, provider=provider, threads=threads, device=self.device)
        options = self._engine_options(artifact)
        cache = self.kernel_cache(artifact)
        return TensorRTBackend(data, device=self.device, runtime_cache=cache, scratch=scratch, **options)

    @property
    def gpu(self) -> str:
        """Index and name of the GPU that runs the files; empty for the CPU."""
        return "" if self.backend == "onnxruntime" else f"cuda:{self.device}, {gpu(self.device)}"

    @property
    def runs_engines(self) -> bool:
        """True if the files are engines, which ``open_engine`` opens."""
        return self.backend in _TENSORRT_VARIANTS

    def open_engine(self, artifact: Artifact, data: bytes, device: Device) -> Engine:
        """Load one of the engines without memory and stream of its own; errors are those of ``open``.

        Args:
            artifact: Entry of the file.
            data: Content of the file, whose SHA-256 the caller has verified.
            device: The GPU, which must be current.

        Returns:
            The engine, which the caller must close.
        """
        return Engine(data, device=device, **self._engine_options(artifact))

    def kernel_cache(self, artifact: Artifact) -> Path | None:
        """Return the file of the kernels that TensorRT-RTX compiles for an engine; None where none can be kept."""
        path = self.folder.path
        # In a folder that is not writeable, kernels are compiled each time
        keeps = _TENSORRT_VARIANTS[self.backend] == "tensorrt_rtx" and os.access(path, os.W_OK)
        return path / f"{artifact.file}.kernels" if keeps else None

    def _engine_options(self, artifact: Artifact) -> dict[str, Any]:
        variant, details = _TENSORRT_VARIANTS[self.backend], artifact.details
        _check_machine(variant, details, gpu(self.device))
        return {
            "backend": variant,
            "weights": _weights(self.folder, artifact) if details.get("stripped") else None,
            "compatible": details.get("compatible") is True,
        }


def select(
    folder: ArtifactFolder, backend: BackendName = "auto", precision: Precision | None = None, device: int = 0
) -> Selection:
    """Choose a backend and the files that it runs.

    ``auto`` is what ``best_backend`` says. Any other backend is never replaced: a CCNetError says what is missing.

    Args:
        folder: The artifact folder.
        backend: The backend to use.
        precision: Precision of ``decode`` and ``full``. None is the engine's own (FP16 if there are several), and
            FP32 in ONNX Runtime.
        device: Index of the GPU, for all backends that use one.

    Returns:
        The backend and its files.

    Raises:
        CCNetError: The backend is unknown, or something that it needs is missing, such as a GPU of this index.
    """
    why = "it was asked for"
    with prefix_errors(folder.path):
        if backend == "auto":
            backend, why = best_backend(folder.manifest, precision, device)
        if backend in _TENSORRT_VARIANTS:
            encode, decode = _find_engines(folder.manifest, backend, precision, device)
        elif backend in _PROVIDERS:
            encode, decode = _find_graphs(folder.manifest, backend, precision or "fp32")
        else:
            raise CCNetError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")
    # The memory of ``full`` is known on a CPU and of engines
    has_full = backend == "onnxruntime" or backend in _TENSORRT_VARIANTS
    full = _find_full(folder.manifest, decode) if has_full else None
    return Selection(folder=folder, backend=backend, encode=encode, decode=decode, full=full, why=why, device=device)


def best_backend(
    manifest: Manifest | None = None, precision: Precision | None = None, device: int = 0
) -> tuple[BackendName, str]:
    """Return the fastest backend that can run on this machine, and why, in one line.

    It is the first of TensorRT, TensorRT-RTX, ONNX Runtime's CUDA provider and the CPU for which all is here: a GPU
    that the library supports, the library, and engines in the folder.

    Args:
        manifest: Manifest of the artifact folder; None is a folder that has all engines.
        precision: Precision of ``decode`` and ``full``; None is any.
        device: Index of the GPU.

    Returns:
        The backend and the reason.

    Raises:
        CCNetError: There is no GPU of this index, which is not the first.
    """
    if not (device or has_gpu()):
        return "onnxruntime", "there is no NVIDIA GPU"
    here = gpu(device)
    lacks: list[str] = []
    names: tuple[BackendName, ...] = ("tensorrt", "tensorrt-rtx")
    for name in names:
        why = _lack(_TENSORRT_VARIANTS[name], here, manifest, precision)
        if not why:
            return name, "; ".join((f"it runs on {here}", *lacks))
        lacks.append(f"{name}: {why}")
    if why := cuda_refusal(device):
        return "onnxruntime", "; ".join((f"nothing else runs on {here}", *lacks, f"onnxruntime-cuda: {why}"))
    return "onnxruntime-cuda", "; ".join((f"it runs on {here}", *lacks))


def _lack(variant: trt.Name, gpu: str, manifest: Manifest | None, precision: Precision | None) -> str:
    """Return what a TensorRT lacks to run on this machine, empty if nothing."""
    if variant not in trt.available():
        return "not installed"
    if why := architectures.why_unsupported(variant, gpu):
        return why
    return "" if manifest is None or _engines(manifest, variant, precision) else "the folder has no engines of it"


def _find_graphs(manifest: Manifest, backend: str, precision: Precision) -> tuple[Artifact, Artifact]:
    """Return the graphs of encode and decode; for FP32 on a CPU those with compiled operators, where both exist."""
    native = {artifact.kind: artifact for artifact in manifest.artifacts if artifact.format == NATIVE_FORMAT}
    if backend == "onnxruntime" and precision == "fp32" and operators() and native.keys() >= {"encode", "decode"}:
        return native["encode"], native["decode"]
    decode = manifest.find("decode", precision=precision)
    return manifest.find("encode"), decode


def _find_full(manifest: Manifest, decode: Artifact) -> Artifact | None:
    """Return the graph or engine that does in one pass what encode and this decode do, if it runs where decode does."""

    def build(artifact: Artifact) -> list[object]:
        """Return what decides on which machines an engine runs; None of each for a graph."""
        return [artifact.details.get(name) for name in ("version", "gpu", "capability", "compatible")]

    wanted = ("full", decode.format, decode.precision)
    found = (artifact for artifact in manifest.artifacts if build(artifact) == build(decode))
    return next((a for a in found if (a.kind, a.format, a.precision) == wanted), None)


def _find_engines(
    manifest: Manifest, backend: str, precision: Precision | None, device: int
) -> tuple[Artifact, Artifact]:
    trt.load(_TENSORRT_VARIANTS[backend])
    gpu(device)
    engines = _engines(manifest, _TENSORRT_VARIANTS[backend], precision)
    if engines is None:
        what = f"{precision} engines" if precision else "engines"
        raise CCNetError(
            f"the folder has no encode and decode {what} of {backend}: ccnet build FOLDER --backend {backend}"
        )
    return engines


def _engines(manifest: Manifest, variant: trt.Name, precision: Precision | None) -> tuple[Artifact, Artifact] | None:
    """Return the engines of encode (always FP32: it sums over all pixels) and decode; None unless both exist."""
    engines = {(a.kind, a.precision): a for a in manifest.artifacts if a.format == variant}
    encode = engines.get(("encode", "fp32"))
    precisions = (precision,) if precision else get_args(Precision)
    decode = next((engines["decode", p] for p in precisions if ("decode", p) in engines), None)
    return (encode, decode) if encode and decode else None


def _check_machine(variant: trt.Name, details: Mapping[str, Any], here: str) -> None:
    """Refuse an engine that was built for another version or GPU, as TensorRT may crash on it; register its plugin."""
    built, version = str(details.get("version")), trt.load(variant).__version__
    if built != version and details.get("compatible") is not True:
        raise CCNetError(f"built with {variant} {built}, this is {version}: ccnet build, or build with --compatible")
    if variant == "tensorrt_rtx" and (why := architectures.why_other_target(details.get("capability"), here)):
        raise CCNetError(f"{why}: ccnet build, or use the backend onnxruntime")
    built_for = details.get("gpu")
    if built_for and not architectures.is_same_gpu(built_for, here) and details.get("compatible") is not True:
        raise CCNetError(f"built for {built_for}, this is {here}: ccnet build, or build with --compatible")
    if details.get("plugin") is True:
        trt_plugin.register(trt.load(variant))


def _weights(folder: ArtifactFolder, engine: Artifact) -> bytes:
    """Return the graph whose weights an engine without weights takes."""
    graph = folder.manifest.find(engine.kind, precision=engine.precision)
    data = folder.read(graph)
    refuse_external(graph.file, data)
    return data
