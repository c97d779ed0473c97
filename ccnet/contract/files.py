"""Files that the package ships, atomic writes, folders, hashes and strict JSON."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import json
import secrets
from pathlib import Path
from typing import Any

from ccnet.contract.errors import CCNetError

SHIPPED_WEIGHTS = Path(__file__).parents[1] / "weights" / "ccnet-any.safetensors"
"""The default weights; weights/README.md is the model card of all weights that the package ships."""

BENCHMARK_WEIGHTS = SHIPPED_WEIGHTS.with_name("ccnet-cave.safetensors")
"""The paper's network, trained for the benchmark's camera alone: for comparisons."""

HASH_BLOCK_BYTES = 1 << 20


@functools.cache
def kernel_library_path() -> Path | None:
    """Return the package's compiled kernels, or None where it was installed without a C compiler."""
    names = (f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    candidates = (Path(__file__).parents[1] / "csrc" / name for name in names)
    return next((path for path in candidates if path.is_file()), None)


def hidden_path(path: Path, suffix: str = ".partial") -> Path:
    """Return a hidden name beside ``path`` for a file that is not whole yet; no other process uses it."""
    return path.with_name(f".ccnet-{secrets.token_hex(6)}{suffix}")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a temporary file and rename it, so that no reader ever finds half a file.

    Args:
        path: The file; an older file of this name is replaced. Missing folders are made.
        data: The whole content.

    Raises:
        CCNetError: The file cannot be written. An older file is still whole.
    """
    make_folder(path.parent)
    partial = hidden_path(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CCNetError(f"{path}: cannot be written ({error.strerror}); choose a folder that you can write") from error


def make_folder(folder: Path) -> None:
    """Create the folder and its parents where they do not exist yet.

    Args:
        folder: The folder.

    Raises:
        CCNetError: The folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: the name is not a valid file name
        why = getattr(error, "strerror", None) or error
        raise CCNetError(f"{folder}: cannot be made ({why}); name a folder that you can write") from error


def strict_json(value: Any, indent: int | None) -> str:
    """Return plain values as JSON. Standard JSON has neither infinity nor NaN, so they become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda name: None), indent=indent)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
