"""Units of wavelengths in cubes, as instruments and programs write them: one table for all formats."""

from __future__ import annotations

import re
import unicodedata

_NM_OF_UNIT = {
    r"nm|nano-?met(er|re)s?|nanom\.?": 1.0,
    r"[uμ]m|micro-?met(er|re)s?|microns?|microm\.?": 1e3,
    r"m|met(er|re)s?": 1e9,
}
"""Regular expression of a unit's names, in lower case → nm in the unit."""

_SMALL_UNITS_NM = 1e3
"""Largest unit of a wavelength in the name of a band: there, metres are the size of a pixel."""


def nm_of_unit(unit: str) -> float | None:
    """Return the nanometres in a unit such as nm, Micrometers or m; None for an unknown unit."""
    name = unicodedata.normalize("NFKC", unit).strip().lower()  # the micro sign becomes the letter
    return next((nm for names, nm in _NM_OF_UNIT.items() if re.fullmatch(names, name)), None)


def nm_of_band_name(name: str) -> float | None:
    """Return the wavelength that a band's name begins with, such as ``550 nm`` or ``0.55 µm, green``, in nm."""
    found = re.match(r"\s*([\d.]+)\s*([^\W\d_]+)", name)
    unit = nm_of_unit(found[2]) if found else None
    return float(found[1]) * unit if found and unit and unit <= _SMALL_UNITS_NM else None
