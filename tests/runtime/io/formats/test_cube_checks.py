"""Units of wavelengths by all the names that the readers of ENVI, GeoTIFF and NetCDF meet."""

from __future__ import annotations

import pytest

from ccnet.runtime.io.formats.cube_checks import nm_of_band_name, nm_of_unit


@pytest.mark.parametrize(
    ("names", "nm"),
    [
        (("nm", "Nanometers", "nanometre", "nano-meters", "Nanom.", " NM "), 1),
        (("um", "µm", "μm", "Micrometers", "micrometre", "micro-meters", "micron", "Microns"), 1000),
        (("m", "metre", "Meters"), 1e9),
        (("", "unknown", "GHz", "mm", "1/cm", "nmm", "wavenumber"), None),
    ],
)
def test_unit_is_known_by_its_names(names: tuple[str, ...], nm: float | None) -> None:
    assert {nm_of_unit(name) for name in names} == {nm}


@pytest.mark.parametrize(
    ("name", "nm"),
    [
        ("550 nm", 550),
        ("  0.55 µm, green", 550),
        ("443.5nanometers", 443.5),
        ("665nm_red", 665),
        ("2.2 Micrometers", 2200),
        ("10 m resolution", None),
        ("Band 550 nm", None),
        ("550", None),
        ("550 nmx", None),
        ("", None),
    ],
)
def test_band_name_begins_with_its_wavelength(name: str, nm: float | None) -> None:
    assert nm_of_band_name(name) == pytest.approx(nm)
