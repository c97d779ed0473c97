"""Gaps of a cube: pixels and bands without data, which are NaN.

ENVI's headers mark whole pixels by their ``data ignore value``, and whole bands by ``bbl``.

Shape legend: 31 bands first, H×W pixels; reflectance; float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract.spec import BANDS_NM


def known_values(cube: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_] | None:
    """Return where a cube has data, (31, H, W); None if it has data everywhere."""
    return ~np.isnan(cube) if np.isnan(cube.min()) else None


def describe_gaps(cube: npt.NDArray[np.floating]) -> dict[str, Any] | None:
    """Return the number of pixels and the bands, nm, without data as plain values; None if there are none."""
    if (known := known_values(cube)) is None:
        return None
    bands = [nm for nm, good in zip(BANDS_NM, np.any(known, axis=(1, 2)).tolist(), strict=True) if not good]
    return {"pixels": int(np.count_nonzero(~known.any(axis=0))), "bands": bands}


def gaps_as_text(cube: npt.NDArray[np.floating]) -> str:
    """Return the pixels and bands without data of a cube that lacks some, such as ``8 of 64 pixels``."""
    gaps = describe_gaps(cube) or {"pixels": 0, "bands": []}
    parts = [f"{gaps['pixels']} of {cube[0].size} pixels"] if gaps["pixels"] else []
    if bands := gaps["bands"]:
        parts.append(f"{len(bands)} of {len(cube)} bands ({', '.join(map(str, bands))} nm)")
    return " and ".join(parts)
