"""Colour matrices, from a camera's white-balanced linear RGB to the weights' camera, and those of known cameras.

Legend: a matrix M has 3 rows of 3; the weights' camera gives M @ (R, G, B), and white (1, 1, 1) stays white.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError, decode_errors_as, response_table

Matrix = tuple[tuple[float, float, float], ...]
Response = tuple[tuple[float, float, float], ...]

DAYLIGHT, TUNGSTEN = "daylight", "tungsten"
"""Names of CIE's illuminants D65 and A, the two lights of the shipped matrices."""

KNOWN_CAMERAS = Path(__file__).with_name("known.json")
"""Matrices and responses of measured cameras, written by ``ccnet camera known``."""


@dataclass(frozen=True, kw_only=True)
class LightMatrix:
    """A camera's colour matrix in one light.

    Attributes:
        light: Name of the light.
        neutral: The sensor's values of a white surface in this light, as multiples of G's; None if unknown.
        matrix: 3 rows of 3.
        response: Response of the white-balanced channels in this light, before the matrix; None if unknown. 31 rows of
            R, G and B on 400, 410 … 700 nm; each column sums to 1.
    """

    light: str
    neutral: tuple[float, float, float] | None
    matrix: Matrix
    response: Response | None = None


@dataclass(frozen=True, kw_only=True)
class CameraMatrices:
    """A camera's colour matrices in one or two lights.

    Attributes:
        name: Manufacturer and model.
        source: Origin of the numbers.
        target: Name of the weights' camera that the matrices lead to; None for CIE's standard observers.
        lights: One or two.
    """

    name: str
    source: str
    target: str | None
    lights: tuple[LightMatrix, ...]

    def in_light(self, light: str | None) -> LightMatrix:
        """Return the matrix in a light; the first one if ``light`` is None, CCNetError if there is none for it."""
        for each in self.lights:
            if light in (None, each.light):
                return each
        names = " or ".join(each.light for each in self.lights)
        raise CCNetError(f"{self.name} has no matrix for the light {light!r}, expected {names}")

    def in_light_of(self, neutral: Sequence[float]) -> LightMatrix:
        """Return the matrix for a light that is known by the sensor's values of white.

        Between two lights, matrices and responses are interpolated at the place that log(R / B) of white has between
        them. Beyond both, those of the nearer light hold.

        Args:
            neutral: The sensor's values (3,) of a white surface, on any scale.

        Returns:
            The matrix, the response if both lights have it, and the words that name the light.
        """
        first, last = self.lights[0], self.lights[-1]
        if first is last or first.neutral is None or last.neutral is None:
            return first
        place, start, end = (np.log(white[0] / white[2]) for white in (neutral, first.neutral, last.neutral))
        share = float(np.clip((place - start) / (end - start), 0, 1)) if abs(end - start) > 1e-6 else 0.0
        known = first.response is not None and last.response is not None
        return LightMatrix(
            light=f"{1 - share:.0%} {first.light}, {share:.0%} {last.light}",
            neutral=(neutral[0], neutral[1], neutral[2]),
            matrix=to_matrix(_mix(first.matrix, last.matrix, share)),
            response=to_response(_mix(first.response, last.response, share)) if known else None,
        )


def _mix(first: Any, last: Any, share: float) -> npt.NDArray[np.float64]:
    return (1 - share) * np.array(first) + share * np.array(last)


def to_matrix(values: npt.NDArray[Any]) -> Matrix:
    """Return an array (3, 3) as plain numbers with six digits after the point."""
    return _rounded_rows(values)


def to_response(values: npt.NDArray[Any]) -> Response:
    """Return a response (31, 3) as plain numbers with six digits after the point; CCNetError if it is none."""
    rows = _rounded_rows(values)
    response_table(rows)  # rounded columns still sum to 1
    return rows


def _rounded_rows(values: npt.NDArray[Any]) -> tuple[tuple[float, float, float], ...]:
    rows = np.round(values.astype(np.float64), 6).tolist()
    return tuple((row[0], row[1], row[2]) for row in rows)


@functools.cache
def known_cameras() -> dict[str, CameraMatrices]:
    """Return the shipped cameras by name, sorted."""
    with decode_errors_as(KNOWN_CAMERAS, "the package's file of known cameras: install it again"):
        document = json.loads(KNOWN_CAMERAS.read_bytes())
        source, target = document["source"], document["target"]
        cameras = sorted(document["cameras"].items())
        return {
            name: CameraMatrices(name=name, source=source, target=target, lights=_lights(entries))
            for name, entries in cameras
        }


def _lights(entries: dict[str, Any]) -> tuple[LightMatrix, ...]:
    """Return the matrices and responses of a camera's entries, daylight first."""
    return tuple(
        LightMatrix(
            light=light,
            neutral=tuple(entry["neutral"]),
            matrix=to_matrix(np.array(entry["matrix"])),
            response=to_response(np.array(entry["response"])),
        )
        for light, entry in sorted(entries.items())
    )


def find_camera(name: str) -> CameraMatrices | None:
    """Return the known camera of this name, or of a raw file's make and model; None if there is none."""
    wanted = _normalised(name)
    return next((camera for known, camera in known_cameras().items() if _normalised(known) == wanted), None)


def require_camera(name: str) -> CameraMatrices:
    """Return the known camera of this name; a CCNetError names those with similar names."""
    if (camera := find_camera(name)) is not None:
        return camera
    close = difflib.get_close_matches(name, known_cameras(), 3, 0.4)
    like = f"did you mean {', '.join(close)}? " if close else ""
    raise CCNetError(
        f"camera {name!r} is no file and not known: {like}'ccnet camera list' lists the known ones, 'ccnet camera fit'"
        " makes a matrix"
    )


def _normalised(name: str) -> str:
    """Return a name for comparisons: lower case, no punctuation, each word once, no company's ending."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(dict.fromkeys(word for word in words if word not in ("corporation", "co", "ltd", "inc")))
