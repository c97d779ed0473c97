"""Turn frames into cubes with exported graphs and engines; needs numpy and ONNX Runtime or TensorRT, never torch."""

from ccnet.contract import CCNetError
from ccnet.runtime.io.cubes import open_cube, read_cube
from ccnet.runtime.io.frames import read_frame

from .async_reconstructor import AsyncReconstructor
from .projection import Projection
from .reconstructor import Reconstructor

Slots = AsyncReconstructor
"""The name of ``AsyncReconstructor`` in version 0.1.0."""

__all__ = [
    "AsyncReconstructor",
    "CCNetError",
    "Projection",
    "Reconstructor",
    "Slots",
    "open_cube",
    "read_cube",
    "read_frame",
]
