"""The shipped colour matrices and responses of measured cameras, made from a folder of responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccnet.data.camera import Camera
from ccnet.data.spectra import Values
from ccnet.runtime.io.cameras.matrices import DAYLIGHT, TUNGSTEN, to_matrix, to_response

from .lights import find_light
from .matrix import fit_matrix


def known_document(files: Sequence[Path], target: Camera, moments: Values, source: str) -> dict[str, Any]:
    """Return the content of ``known.json``.

    Args:
        files: Responses.
        target: The weights' camera.
        moments: Second moments (31, 31) of the reflectances to fit over.
        source: Origin of the responses and reflectances, with their licences.

    Returns:
        ``source``, ``target``, and ``cameras``: name → light → ``neutral``, ``matrix`` and ``response``.
    """
    cameras = {}
    for file in files:
        camera = Camera.read(file)
        cameras[camera.name] = {name: _entry(camera, name, target, moments) for name in (DAYLIGHT, TUNGSTEN)}
    return {"source": source, "target": target.name, "cameras": dict(sorted(cameras.items()))}


def _entry(camera: Camera, light: str, target: Camera, moments: Values) -> dict[str, Any]:
    illuminant = find_light(light)
    lit = camera.under(illuminant)
    matrix = fit_matrix(lit, target.response, moments)
    return {
        "neutral": [round(float(value), 5) for value in camera.neutral(illuminant)],
        "matrix": [list(row) for row in to_matrix(matrix)],
        "response": [list(row) for row in to_response(lit.response)],
    }
