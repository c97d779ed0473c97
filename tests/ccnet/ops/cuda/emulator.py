"""The CUDA kernels compiled as C++, with a block's threads as coroutines, in the place of launches on a GPU."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ccnet.ops.cuda import pooled_nescm, scan
from ccnet.ops.cuda.variants import CSRC, Grid, PooledVariant, ScanVariant

HERE = Path(__file__).parent
COMPILER = shutil.which("g++") if sys.platform == "linux" else None  # the coroutines are those of Linux


class Index(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


class Emulator:
    """Launches kernels on the CPU, the threads of a block in ascending or descending order between barriers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descending = False
        self.library = functools.cache(self._compile)

    def launch(
        self, variant: ScanVariant | PooledVariant, name: str, grid: Grid, arguments: tuple[Tensor | int, ...]
    ) -> None:
        members = [
            ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.c_int(argument)
            for argument in arguments
        ]
        assert all(argument.is_contiguous() for argument in arguments if isinstance(argument, Tensor))
        function = getattr(self.library(variant), name.removeprefix("ccnet_"))
        function(ctypes.byref(Index(*grid)), int(self.descending), *members)

    def _compile(self, variant: ScanVariant | PooledVariant) -> Any:
        library = self.folder / f"kernel-{len([*self.folder.iterdir()])}.so"
        definitions = [f"-D{name}={value}" for name, value in variant.definitions.items()]
        definitions += ["-DPOOLED"] if isinstance(variant, PooledVariant) else []
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
        command = [str(COMPILER), *flags, f"-I{CSRC}", *definitions, str(HERE / "kernels.cpp"), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


@contextmanager
def installed_emulator(folder: Path) -> Iterator[Emulator]:
    """Run the kernels on the CPU inside ``with``; the test is skipped without g++."""
    if COMPILER is None:
        pytest.skip("needs g++ on Linux, to compile the CUDA kernels as C++")
    emulator = Emulator(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "launch", emulator.launch)
        patch.setattr(pooled_nescm, "launch", emulator.launch)
        yield emulator
