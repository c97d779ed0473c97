"""The resident pipeline on frames: not measured yet, because its engines need TensorRT."""

from __future__ import annotations

from .rig import Rig, SkippedError


def run(rig: Rig) -> None:
    """Say that the pipeline cannot run without TensorRT's engines.

    Args:
        rig: The device.

    Raises:
        SkippedError: Always: torch in the place of the engines is not written.
    """
    raise SkippedError(
        f"the resident pipeline needs TensorRT's engines; torch in their place on {rig.device} is not done"
    )
