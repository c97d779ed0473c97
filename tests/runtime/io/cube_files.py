"""Cubes and cube files for the tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.io.cubes import open_cube

Array = npt.NDArray[np.float32]
FORMATS = (".hdr", ".mat", ".npy", ".tif", ".nc")
every_format = pytest.mark.parametrize("suffix", FORMATS)


def cube_of(height: int = 20, width: int = 24, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((31, height, width), np.float32)


def with_value(value: float) -> Array:
    cube = cube_of()
    cube[30, 3, 4] = value
    return cube


def save(path: Path, cube: Array, /, **metadata: str) -> Path:
    with open_cube(path, cube.shape[1], cube.shape[2], metadata) as writer:
        writer.write(0, cube)
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@contextmanager
def refusal(path: Path, *words: str) -> Iterator[None]:
    """Check that the block raises a one-line error with the file and these words, and no warning."""
    with warnings.catch_warnings(), pytest.raises(CCNetError) as caught:
        warnings.simplefilter("error")
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    for word in (str(path), *words):
        assert word in message


def write_mat(path: Path, cube: Any, bands: Any, **options: Any) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("cube", data=cube.transpose(0, 2, 1), **options)
        file["bands"] = bands
