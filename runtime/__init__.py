"""Turn frames into cubes with exported graphs and engines; needs numpy and ONNX Runtime or TensorRT, never torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccnet.contract import CCNetError
    from ccnet.runtime.io.cubes import open_cube, read_cube
    from ccnet.runtime.io.frames import read_frame

    from .async_reconstructor import AsyncReconstructor
    from .async_reconstructor import AsyncReconstructor as Slots
    from .reconstructor import Reconstructor
    from .tiles.projection import Projection

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

_PLACES = {
    "AsyncReconstructor": ("ccnet.runtime.async_reconstructor", "AsyncReconstructor"),
    "CCNetError": ("ccnet.contract", "CCNetError"),
    "Projection": ("ccnet.runtime.tiles.projection", "Projection"),
    "Reconstructor": ("ccnet.runtime.reconstructor", "Reconstructor"),
    "Slots": ("ccnet.runtime.async_reconstructor", "AsyncReconstructor"),  # its name in version 0.1.0
    "open_cube": ("ccnet.runtime.io.cubes", "open_cube"),
    "read_cube": ("ccnet.runtime.io.cubes", "read_cube"),
    "read_frame": ("ccnet.runtime.io.frames", "read_frame"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts before numpy does."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
