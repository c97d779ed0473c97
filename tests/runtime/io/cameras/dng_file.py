"""DNG files, as a camera would write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BLACK, FULL = 512, 16383
DAYLIGHT_MATRIX = (0.9, -0.2, -0.1, -0.4, 1.2, 0.2, 0.0, 0.1, 0.6)
TUNGSTEN_MATRIX = (0.8, 0.1, -0.1, -0.5, 1.3, 0.3, 0.0, 0.2, 0.5)
NEUTRAL = (0.5, 1.0, 0.6)


def rationals(values: Sequence[float]) -> tuple[int, ...]:
    return tuple(part for value in values for part in (round(value * 10000), 10000))


def shot_with(neutral: Sequence[float]) -> dict[int, Any]:
    """Return the change of tags for a white balance: the sensor's values of white."""
    return {50728: ("2I", 3, rationals(neutral))}


def write_dng(
    path: Path,
    left: Sequence[float],
    right: Sequence[float],
    model: str = "X",
    changes: Mapping[int, Any] | None = None,
) -> Path:
    """Write 48×64 px with linear sensor values in [0, 1] for each half; changes replace tags, None removes one."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile comes with scikit-image")
    image = np.empty((48, 64, 3))
    image[:, :32], image[:, 32:] = left, right
    channel = np.tile([[0, 1], [1, 2]], (24, 32))
    mosaic = np.take_along_axis(image, channel[..., None], 2)[..., 0]
    samples = np.round(BLACK + mosaic * (FULL - BLACK)).astype(np.uint16)
    tags = {
        271: ("s", 0, "Test"),
        272: ("s", 0, model),
        33421: ("H", 2, (2, 2)),  # CFARepeatPatternDim
        33422: ("B", 4, (0, 1, 1, 2)),  # CFAPattern: RGGB
        50706: ("B", 4, (1, 4, 0, 0)),  # DNGVersion
        50707: ("B", 4, (1, 1, 0, 0)),
        50708: ("s", 0, f"Test {model}"),
        50714: ("H", 1, BLACK),
        50717: ("H", 1, FULL),
        50721: ("2i", 9, rationals(TUNGSTEN_MATRIX)),
        50722: ("2i", 9, rationals(DAYLIGHT_MATRIX)),
        50728: ("2I", 3, rationals(NEUTRAL)),
        50778: ("H", 1, 17),
        50779: ("H", 1, 21),
        **(changes or {}),
    }
    extra = [(tag, *entry) for tag, entry in sorted(tags.items()) if entry is not None]
    tifffile.imwrite(path, samples, photometric=32803, extratags=extra, metadata=None)
    return path
