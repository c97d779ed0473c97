"""From frames to cubes with exported graphs and engines; needs numpy and ONNX Runtime or TensorRT, never torch."""

from ccnet.contract import CCNetError

from .cubes import open_cube, read_cube
from .frames import read_frame
from .reconstructor import Reconstructor

__all__ = ["CCNetError", "Reconstructor", "open_cube", "read_cube", "read_frame"]
