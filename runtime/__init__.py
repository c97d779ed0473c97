"""From frames to cubes with exported graphs and engines; needs numpy and ONNX Runtime or TensorRT, never torch."""

from ccnet.contract import CCNetError

from .cubes import open_cube, read_cube
from .frames import read_frame
from .projection import Projection
from .reconstructor import Reconstructor
from .slots import Slots

__all__ = ["CCNetError", "Projection", "Reconstructor", "Slots", "open_cube", "read_cube", "read_frame"]
