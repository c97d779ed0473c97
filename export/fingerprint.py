"""Fingerprints of an export and of a check: where the fingerprint is as before, there is nothing to do again.

A fingerprint is one hash of all that a result depends on: weights, options, tools, and the source files that shape it.
Neither torch nor ONNX is imported, so that a command that has nothing to do is done at once.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ccnet
from ccnet.contract import ArtifactFolder, CCNetError, sha256
from ccnet.metrics.predicted_error import error_file
from ccnet.runtime.backends.onnxruntime import operators
from ccnet.runtime.gpu import cuda

CHECKED = "check.json"
"""The file that a check leaves: its fingerprint (under "inputs"), whether it passed, and all figures."""

ROOTS: Mapping[str, Path] = {
    "ccnet": Path(ccnet.__file__).parent,
    "export": Path(__file__).parent,
    "runtime": Path(cuda.__file__).parents[1],
}
"""Package → its folder."""

Sources = Mapping[str, Sequence[str]]
"""Package → files, and folders with all modules inside, relative to the package's folder."""

GRAPH_SOURCES: Sources = {
    "ccnet": ("contract/manifest.py", "contract/spec.py", "model", "ops"),
    "export": ("artifacts.py", "graph"),
}
"""The modules that shape the graphs of an export."""

CHECK_SOURCES: Sources = {
    "ccnet": ("contract/artifact_folder.py", "contract/manifest.py", "contract/spec.py", "metrics", "model", "ops"),
    "export": ("reference.py", "verify.py"),
    "runtime": ("backends", "gpu", "io", "quality", "tiles", "probe.py", "reconstructor.py"),
}
"""The modules that compute, compare or write what a check judges."""

_PACKAGES = ("ccnet-hsi", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_RUNNERS = (*_PACKAGES, "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-bindings")


def tools(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    return {"python": platform.python_version(), **{name: found for name in packages if (found := _version(name))}}


def export_fingerprint(weights: Path, input: str, plugin: bool = False) -> str:
    """Return the fingerprint of an export.

    Args:
        weights: File of the weights.
        input: Type of the graphs' frames, ``float32`` or ``uint8``.
        plugin: Whether there is a graph for TensorRT's plugin.

    Returns:
        The hash of weights, their predicted error, type, tools, the modules that shape graphs, and the compiled
        kernels.
    """
    beside = error_file(weights)
    error = _sha256(beside) if beside.is_file() else ""
    return digest(_sha256(weights), error, input, plugin, tools(), source_hashes(GRAPH_SOURCES), _kernels())


def check_fingerprint(
    folder: ArtifactFolder, weights: Path | None, frames: Sequence[Path], options: Sequence[object], device: int = 0
) -> str:
    """Return the fingerprint of a check.

    Args:
        folder: Artifact folder; its manifest vouches for the artifacts.
        weights: File of the weights, if the check needs any.
        frames: Files of the frames.
        options: All other options that decide the result.
        device: Index of the GPU that runs engines.

    Returns:
        The hash of artifacts, weights, frames, options, tools, index and name of the GPU, the modules that judge, and
        the compiled kernels.
    """
    files = [*([weights] if weights else []), *frames]
    named = [(str(folder.path), digest(folder.manifest.to_json())), *((str(path), _sha256(path)) for path in files)]
    code = source_hashes(CHECK_SOURCES)
    place = [device, _gpu(device)]
    return digest(named, [str(option) for option in options], tools(_RUNNERS), place, code, _kernels())


def has_passed(out: Path, folder: ArtifactFolder, fingerprint: str) -> bool:
    """Return whether ``out`` holds the results of this very check, which passed, and the artifacts are still intact."""
    try:
        found = json.loads((out / CHECKED).read_bytes())
        passed = found["inputs"] == fingerprint and found["passed"] is True
        return passed and folder.is_intact()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def digest(*parts: object) -> str:
    """Return one hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_hashes(sources: Sources) -> dict[str, str]:
    """Return the hash of each module of the sources, by its package and path."""
    return {
        f"{package}/{path.relative_to(ROOTS[package]).as_posix()}": sha256(path)
        for package, entries in sources.items()
        for entry in entries
        for path in modules(ROOTS[package] / entry)
    }


def modules(entry: Path) -> list[Path]:
    """Return a module's file, or all modules of a folder and of the folders inside."""
    return sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]


def _gpu(device: int) -> str:
    """Return the name of a GPU; empty if there is none of this index, where the check needs none or refuses it."""
    try:
        return cuda.gpu(device)
    except CCNetError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _kernels() -> str:
    """Return the hash of the compiled kernels, whose limits decide which nodes are fused; empty without kernels."""
    library = operators()
    return _sha256(library) if library else ""


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}); name a file that exists") from error
