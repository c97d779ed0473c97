"""Measured cameras with their colour matrices, and the brands that training must not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ccnet.contract import CCNetError
from ccnet.data.camera import Camera
from ccnet.data.spectra import Values
from ccnet.runtime.io.cameras.matrices import DAYLIGHT, TUNGSTEN

from .lights import find_light
from .matrix import fit_matrix

LIGHTS = (DAYLIGHT, TUNGSTEN)
"""Lights in which training uses each camera: those of the shipped matrices."""


def split_by_brand(cameras: Sequence[Camera], brands: Sequence[str]) -> tuple[list[Camera], list[Camera]]:
    """Split cameras by their brand, with which a camera's name starts.

    Args:
        cameras: Measured cameras.
        brands: Brands to hold out, in any case of letters.

    Returns:
        The cameras of all other brands, and those of the brands; both in order.

    Raises:
        CCNetError: No camera has one of the brands.
    """
    first_words = [camera.name.split()[0].lower() for camera in cameras]
    for brand in brands:
        if brand.lower() not in first_words:
            known = ", ".join(sorted({camera.name.split()[0] for camera in cameras}))
            raise CCNetError(f"brand {brand!r} has no camera, expected one of {known}")
    lower = {brand.lower() for brand in brands}
    pairs = list(zip(cameras, first_words, strict=True))
    return [camera for camera, word in pairs if word not in lower], [camera for camera, word in pairs if word in lower]


def behind_matrices(cameras: Sequence[Camera], target: Camera, moments: Values) -> Iterator[Camera]:
    """Yield each camera with the matrix to the weights' camera that 'ccnet camera fit' makes of its response.

    Args:
        cameras: Cameras in their light.
        target: The weights' camera.
        moments: Second moments (31, 31) of the reflectances that matrices are fitted over.

    Yields:
        The cameras, in order.
    """
    for camera in cameras:
        yield camera.behind(fit_matrix(camera, target.response, moments))


def with_shifts(cameras: Sequence[Camera], shift_nm: float) -> list[Camera]:
    """Return cameras, each followed by itself with its response shifted along the wavelengths by -shift and +shift nm.

    They stand for cameras that nobody measured. The response repeats its ends at 400 and 700 nm.
    """
    if not shift_nm:
        return list(cameras)
    shifted = []
    for camera in cameras:
        shifted += [camera, camera.shifted(-shift_nm), camera.shifted(shift_nm)]
    return shifted


def in_training_lights(cameras: Sequence[Camera]) -> list[Camera]:
    """Return each camera in each of ``LIGHTS``."""
    lights = [find_light(name) for name in LIGHTS]
    return [camera.under(light) for camera in cameras for light in lights]
