"""The variants of the CUDA kernels: the numbers that each is compiled for, and the grid that it is launched with.

A kernel is compiled for one number of heads and one type of storage, so that its loops unroll. The sizes of its blocks
are told to the compiler and to the launch from here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ccnet

CSRC = Path(ccnet.__file__).with_name("csrc")
"""The folder of the C and CUDA sources."""

HEADS = (1, 2, 4)
MAX_BANDS = 32
"""Bands that the pooled kernel takes: the gates of all of them fit in the 48 kB of shared memory of a block."""

Storage = Literal["float", "Half"]
Grid = tuple[int, int, int]

_ROWS_COLUMNS = {1: (8, 32), 2: (8, 16), 4: (8, 8)}


@dataclass(frozen=True, kw_only=True)
class ScanVariant:
    """A variant of ``ccnet/csrc/cuda/scan.cu``.

    Attributes:
        heads: n.
        storage: Type of the features in memory; the gates' weights are float always.
        pixels: Pixels of a thread, side by side; the plane must be a multiple of it.
        threads: Threads of a block, a power of two.
        approximate: sigmoid and tanh are exact to 11 bits only, which FP16 has.
    """

    heads: int
    storage: Storage = "float"
    pixels: int = 1
    threads: int = 128
    approximate: bool = False

    @property
    def source(self) -> str:
        """Name of the source file."""
        return "scan.cu"

    @property
    def definitions(self) -> dict[str, str]:
        """The macros that the source is compiled with."""
        numbers = {"HEADS": self.heads, "STORAGE": self.storage, "PIXELS": self.pixels, "THREADS": self.threads}
        return _macros(numbers, self.approximate)

    def grid(self, images: int, plane: int) -> Grid:
        """Return the blocks for so many images with planes of so many pixels."""
        return -(-plane // (self.threads * self.pixels)), 2 * images, 1


@dataclass(frozen=True, kw_only=True)
class PooledVariant:
    """A variant of ``ccnet/csrc/cuda/pooled_nescm.cu``.

    Attributes:
        heads: n.
        storage: Type of the features in memory; weights are float always.
        approximate: sigmoid and tanh are exact to 11 bits only, which FP16 has.
    """

    heads: int
    storage: Storage = "float"
    approximate: bool = False

    @property
    def source(self) -> str:
        """Name of the source file."""
        return "pooled_nescm.cu"

    @property
    def definitions(self) -> dict[str, str]:
        """The macros that the source is compiled with."""
        rows, columns = _ROWS_COLUMNS[self.heads]
        numbers = {"HEADS": self.heads, "STORAGE": self.storage, "ROWS": rows, "COLUMNS": columns}
        return _macros({**numbers, "MAX_BANDS": MAX_BANDS}, self.approximate)

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns that a block computes."""
        return _ROWS_COLUMNS[self.heads]

    @property
    def threads(self) -> int:
        """Threads of a block: a pixel each, of its tile and of the ring around it."""
        rows, columns = self.tile
        return (rows + 2) * (columns + 2)

    def grid(self, images: int, height: int, width: int) -> Grid:
        """Return the blocks for so many images of H×W pixels."""
        rows, columns = self.tile
        return -(-width // columns), -(-height // rows), images


def _macros(numbers: Mapping[str, object], approximate: bool) -> dict[str, str]:
    macros = {name: str(number) for name, number in numbers.items()}
    return {**macros, "APPROXIMATE_TANH": "1"} if approximate else macros
