"""The resident pipeline on frames: with torch in the place of engines, so that no TensorRT is needed."""

from __future__ import annotations

from importlib.util import find_spec

from .rig import Rig, SkippedError


def run(rig: Rig) -> None:
    """Measure frames through the pipeline.

    Args:
        rig: The device.

    Raises:
        SkippedError: This version has no resident pipeline.
    """
    if find_spec("ccnet.runtime.resident") is None:
        raise SkippedError("this version has no resident pipeline")
