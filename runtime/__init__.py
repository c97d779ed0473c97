"""From frames to cubes with exported graphs and engines; needs numpy and ONNX Runtime or TensorRT, never torch."""

from ccnet.contract import CCNetError
from ccnet.runtime.io.cubes import open_cube, read_cube
from ccnet.runtime.io.frames import read_frame

from .async_reconstructor import Slots
from .projection import Projection
from .reconstructor import Reconstructor

__all__ = ["CCNetError", "Projection", "Reconstructor", "Slots", "open_cube", "read_cube", "read_frame"]
