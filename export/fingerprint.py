"""What an export and a check depend on, as one hash each: where it has not changed, there is nothing to do again.

Neither torch nor ONNX is imported, so that a command that has nothing to do is done at once.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ccnet
from ccnet.contract import MANIFEST_NAME, Artifact, CCNetError, Manifest, sha256
from ccnet.runtime.backends import cuda
from ccnet.runtime.backends.onnxruntime import operators

CHECKED = "check.json"
"""What a check leaves: its inputs, whether it passed, and all figures."""

_PACKAGES = ("ccnet-hsi", "torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_RUNNERS = (*_PACKAGES, "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-bindings")


def tools(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Python and the packages that are installed, with their versions."""
    return {"python": platform.python_version(), **{name: found for name in packages if (found := _version(name))}}


def export_fingerprint(weights: Path, input: str) -> str:
    """Of an export: weights, options, tools, this package's own code, and its compiled kernels."""
    return digest(_sha256(weights), input, tools(), _code(), _kernels())


def check_fingerprint(folder: Path, weights: Path | None, frames: Sequence[Path], options: Sequence[object]) -> str:
    """Of a check: the artifacts, as their manifest vouches for them, weights, frames, options, tools, GPU and code."""
    files = [folder / MANIFEST_NAME, *([weights] if weights else []), *frames]
    named = [(str(path), _sha256(path)) for path in files]
    return digest(named, [str(option) for option in options], tools(_RUNNERS), cuda.has_gpu(), _code(), _kernels())


def is_intact(folder: Path, artifacts: Sequence[Artifact]) -> bool:
    """Whether the files of these entries of a manifest are there, and are what it vouches for."""
    try:
        return all(sha256(folder / artifact.file) == artifact.sha256 for artifact in artifacts)
    except OSError:
        return False


def has_passed(out: Path, folder: Path, inputs: str) -> bool:
    """Whether ``out`` holds the results of this very check, which passed, and the artifacts are still intact."""
    try:
        found = json.loads((out / CHECKED).read_bytes())
        passed = found["inputs"] == inputs and found["passed"] is True
        return passed and is_intact(folder, Manifest.read(folder).artifacts)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def digest(*parts: object) -> str:
    """One hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def code(*modules: str) -> list[str]:
    """Hashes of source files: a new version of what makes an artifact makes another one."""
    return [sha256(Path(module)) for module in modules]


def _code() -> list[str]:
    """Of the modules that make and judge artifacts."""
    root = Path(ccnet.__file__).parent
    folders = [root, Path(__file__).parent, Path(cuda.__file__).parents[1]]
    return code(*(str(path) for folder in folders for path in sorted(folder.rglob("*.py"))))


def _kernels() -> str:
    library = operators()
    return _sha256(library) if library else ""


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}); give a file that is there") from error
