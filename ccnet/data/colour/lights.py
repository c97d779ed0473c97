"""Lights by name or colour temperature on the cube's bands: CIE's daylight and A, Planck's radiators, equal energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import Illuminant, read_illuminant
from ccnet.data.spectra import Values
from ccnet.runtime.io.cameras.matrices import DAYLIGHT, TUNGSTEN

_DAYLIGHT_BASIS = np.reshape(  # S0, S1, S2 of CIE 15, 400 to 700 nm
    [
        94.8, 104.8, 105.9, 96.8, 113.9, 125.6, 125.5, 121.3, 121.3, 113.5, 113.1, 110.8, 106.5, 108.8, 105.3, 104.4,
        100, 96, 95.1, 89.1, 90.5, 90.3, 88.4, 84, 85.1, 81.9, 82.6, 84.9, 81.3, 71.9, 74.3,
        43.4, 46.3, 43.9, 37.1, 36.7, 35.9, 32.6, 27.9, 24.3, 20.1, 16.2, 13.2, 8.6, 6.1, 4.2, 1.9,
        0, -1.6, -3.5, -3.5, -5.8, -7.2, -8.6, -9.5, -10.9, -10.7, -12, -14, -13.6, -12, -13.3,
        -1.1, -0.5, -0.7, -1.2, -2.6, -2.9, -2.8, -2.6, -2.6, -1.8, -1.5, -1.3, -1.2, -1, -0.5, -0.3,
        0, 0.2, 0.5, 2.1, 3.2, 4.1, 4.7, 5.1, 6.7, 7.3, 8.6, 9.8, 10.2, 8.3, 9.6,
    ],
    (3, len(BANDS_NM)),
)  # fmt: skip

_RADIATION_NM_K = 1.4388e7
"""Planck's second radiation constant, nm·K."""

LIGHT_HELP = "daylight, tungsten, equal, a temperature such as 4000K, or a file (.json, .csv, .npz)"
"""Forms of a light on the command line."""


def find_light(text: str) -> Illuminant:
    """Return a light by its name, colour temperature or file.

    Args:
        text: ``daylight`` (CIE D65), ``tungsten`` (CIE A, 2856 K), ``equal``, a temperature from 1500K to 25000K
            (Planck's radiator below 4000 K, CIE's daylight from there on), or the path of a file.

    Returns:
        The light.

    Raises:
        CCNetError: The text is none of these, or the file cannot be read.
    """
    named = {DAYLIGHT: 6504.0, TUNGSTEN: 2856.0}
    if text == "equal":
        return Illuminant(name="equal energy", power=np.ones(len(BANDS_NM)))
    kelvin = named.get(text) or _kelvin(text)
    if kelvin is None:
        if not Path(text).suffix:
            raise CCNetError(f"light {text!r} is not known, expected {LIGHT_HELP}")
        return read_illuminant(Path(text))
    if not 1500 <= kelvin <= 25000:
        raise CCNetError(f"light {text} is {kelvin:g} K, expected 1500K to 25000K")
    name = text if text in named else f"{kelvin:g}K"
    return Illuminant(name=name, power=_daylight(kelvin) if kelvin >= 4000 else _planck(kelvin))


def _kelvin(text: str) -> float | None:
    digits = text.removesuffix("K")
    return float(digits) if digits.isdecimal() else None


def _planck(kelvin: float) -> Values:
    nm = np.array(BANDS_NM, np.float64)
    power = nm**-5 / np.expm1(_RADIATION_NM_K / (nm * kelvin))
    return power / power.max()


def _daylight(kelvin: float) -> Values:
    """Return CIE's daylight (CIE 15:2004, section 3.1): a mean and two variations, weighted by the chromaticity."""
    coefficients = (0.244063, 99.11, 2.9678e6, -4.6070e9) if kelvin <= 7000 else (0.237040, 247.48, 1.9018e6, -2.0064e9)
    x = sum(c / kelvin**power for power, c in enumerate(coefficients))
    y = -3 * x**2 + 2.87 * x - 0.275
    m = 0.0241 + 0.2562 * x - 0.7341 * y
    m1, m2 = (-1.3515 - 1.7703 * x + 5.9114 * y) / m, (0.03 - 31.4424 * x + 30.0717 * y) / m
    power = np.array([1, m1, m2]) @ _DAYLIGHT_BASIS
    return power / power.max()
