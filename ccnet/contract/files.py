"""Files: the package's own, atomic writes, folders and hashes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import json
from pathlib import Path
from typing import Any

from ccnet.contract.errors import CCNetError

SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "ccnet-cave.safetensors"
"""The weights that the package ships; weights/README.md is their model card."""


@functools.cache
def kernel_library_path() -> Path | None:
    """The package's compiled kernels, or None where it was installed without a C compiler."""
    names = (f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    found = (Path(__file__).parents[1] / "csrc" / name for name in names)
    return next((path for path in found if path.is_file()), None)


def partial_path(path: Path) -> Path:
    """The file that ``write_atomic`` writes before it renames it."""
    return path.with_name(f".{path.name}.partial")


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, then rename, so that nobody ever sees half a file; CCNetError where it cannot be written."""
    partial = partial_path(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CCNetError(f"{path}: cannot be written ({error.strerror}); choose a folder that you can write") from error


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are not there yet; CCNetError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise CCNetError(f"{folder}: cannot be made ({why}); name a folder that you can write") from error


def strict_json(value: Any, indent: int) -> str:
    """JSON of plain values; it has neither infinity nor NaN, so they are null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda name: None), indent=indent)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
