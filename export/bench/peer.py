"""Another network, rgb → cube, as an ONNX file that ONNX Runtime runs as its users would: one pass, default options.

No torch: ``against.py`` measures the memory of a peer in a process that imports this file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, FRAME_SCALE, CCNetError, padded_size, reflect_index
from ccnet.runtime.io.frames import Frame

Array = npt.NDArray[np.float32]

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers that the sides of a network's input may have to be multiples of, px, in the order of the trials."""


class Peer:
    """A network that a user would run instead of CCNet.

    Attributes:
        path: The file.
        name: Its name.
        size: Height and width that the network takes, px; None for a side that is free.
        multiple: Number that both sides of a free size must be multiples of, px; frames are padded to it.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Load the network, and find out what sizes it takes.

        Args:
            path: ONNX file with an input (1, 3, H, W) float32 in [0, 1] and a cube (1, 31, H, W) as its first output.
                H and W are numbers or free.
            threads: CPU threads of an operator; None is one per core.

        Raises:
            CCNetError: The file is not such a network.
        """
        self.name = path.name
        self.path = path
        self._session = _session(path, threads)
        self._input, self.size = self._check_input()
        self.multiple = self._find_multiple()

    def takes(self, height: int, width: int) -> bool:
        """Return whether a frame of that size, px, fits the network: any frame does where the size is free."""
        return all(size is None or side <= size for side, size in zip((height, width), self.size, strict=True))

    def __call__(self, frame: Frame) -> Array:
        """Return the cube of a frame: padded by reflection to a size that the network takes, run, cropped.

        Args:
            frame: Frame (H, W, 3) uint8, uint16 or float32 in [0, 1].

        Returns:
            The cube (31, H, W).

        Raises:
            CCNetError: The frame is larger than the network's fixed size, or the network fails on it.
        """
        height, width = frame.shape[:2]
        if not self.takes(height, width):
            raise CCNetError(f"{self.path}: takes {self._describe_size()}, the frame has {height}×{width} px")
        scaled = np.divide(frame, FRAME_SCALE[frame.dtype.name], dtype=np.float32)
        rows, columns = (
            reflect_index(side, 0, size or padded_size(side, self.multiple))
            for side, size in zip((height, width), self.size, strict=True)
        )
        rgb = np.ascontiguousarray(scaled[rows[:, None], columns].transpose(2, 0, 1)[None])
        return self._run(rgb)[0, :, :height, :width]

    def _run(self, rgb: Array) -> Array:
        """Run the network on (1, 3, H, W) and return the cube (1, 31, H, W)."""
        try:
            cube = self._session.run(None, {self._input: rgb})[0]
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise CCNetError(f"{self.path}: fails on a frame {rgb.shape} ({_one_line(error)})") from error
        expected = (1, len(BANDS_NM), *rgb.shape[2:])
        shape = getattr(cube, "shape", type(cube).__name__)
        if shape != expected:
            raise CCNetError(f"{self.path}: its first output is {shape}, expected the cube {expected}")
        return cube

    def _check_input(self) -> tuple[str, tuple[int | None, int | None]]:
        """Return the input's name, and its height and width where they are fixed."""
        inputs = self._session.get_inputs()
        described = ", ".join(f"{node.name} {node.type} {_dimensions(node.shape)}" for node in inputs)
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
        if len(shape) != 4 or not _may_be(shape[0], 1) or not _may_be(shape[1], 3) or shape[3] == 3:
            raise CCNetError(
                f"{self.path}: its input is {described or 'missing'}, expected one tensor(float) (1, 3, H, W)"
            )
        height, width = (side if isinstance(side, int) else None for side in shape[2:])
        return inputs[0].name, (height, width)

    def _find_multiple(self) -> int:
        """Return the first of ``_MULTIPLES`` that the network takes, found by running it on small frames."""
        for multiple in _MULTIPLES if None in self.size else (1,):
            # Odd numbers of the multiple, so that no larger multiple divides a side
            height, width = (size or (2 * (least // multiple) + 1) * multiple
                             for size, least in zip(self.size, (32, 64), strict=True))  # fmt: skip
            try:
                self._run(np.full((1, 3, height, width), 0.5, np.float32))
            except CCNetError as error:
                last_error = error
            else:
                return multiple
        raise last_error

    def _describe_size(self) -> str:
        return "×".join("any" if size is None else str(size) for size in self.size) + " px"


def _session(path: Path, threads: int | None) -> Any:
    """Load an ONNX file with ONNX Runtime's own defaults, but for the number of threads."""
    if not path.is_file():
        raise CCNetError(f"{path}: no such file, expected an ONNX network")
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # fatal: what goes wrong is raised, once
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise CCNetError(f"{path}: cannot be loaded as ONNX ({_one_line(error)})") from error


def _may_be(dimension: int | str | None, size: int) -> bool:
    """Return whether a dimension of a graph's input is that size, or free."""
    return dimension == size or not isinstance(dimension, int)


def _dimensions(shape: Sequence[int | str | None]) -> str:
    return f"({', '.join(map(str, shape))})"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
