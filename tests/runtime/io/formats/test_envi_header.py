"""ENVI headers as people and instruments write them: each is read, or refused with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.io.cubes import read_cube
from ccnet.runtime.io.formats.envi import open_envi_image
from ccnet.runtime.io.formats.envi_header import read_envi_header
from tests.runtime.io.cube_files import cube_of, refusal

FIELDS = {
    "samples": "16",
    "lines": "15",
    "bands": "31",
    "header offset": "0",
    "file type": "ENVI Standard",
    "data type": "4",
    "interleave": "bsq",
    "byte order": "0",
    "wavelength units": "Nanometers",
    "wavelength": "{" + ",".join(map(str, BANDS_NM)) + "}",
}


def scaled(factor: float) -> str:
    return "{" + ", ".join(str(nm / factor) for nm in BANDS_NM) + "}"


def write(folder: Path, changes: dict[str, str | None], image: str = "a.img", encoding: str = "utf-8") -> Path:
    """Write a cube with a header whose fields are changed, or left out for None."""
    fields = {**FIELDS, **changes}
    lines = ["ENVI", *(f"{key} = {value}" for key, value in fields.items() if value is not None), ""]
    (folder / "a.hdr").write_bytes("\n".join(lines).encode(encoding))
    cube_of(15, 16).tofile(folder / image)
    return folder / "a.hdr"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"byte order": None},
        {"header offset": None},
        {"file type": None},
        {"interleave": "Bsq"},
        {"interleave": "BSQ "},
        {"wavelength units": None},
        {"description": "{a, b\n  c}", "x start": "5", "sensor type": "Unknown"},
        {"Byte_Order": "0", "byte order": None},
        {"bbl": "{" + ",".join("1" * 31) + "}"},
        {"data ignore value": "-9999"},
        {"data ignore value": "nan"},
        {"data gain values": "{" + ",".join("1" * 31) + "}"},
        {"file compression": "0", "major frame offsets": "{0, 0}"},
    ],
)
def test_header_is_read(tmp_path: Path, changes: dict[str, str | None]) -> None:
    np.testing.assert_array_equal(read_cube(write(tmp_path, changes)), cube_of(15, 16))


@pytest.mark.parametrize("unit", ["Nanometers", "nanometer", "NANOMETRES", "nm", "nanometre", "Unknown", "", "{nm}"])
def test_nanometres_are_read_in_every_spelling(tmp_path: Path, unit: str) -> None:
    header = read_envi_header(write(tmp_path, {"wavelength units": unit}))
    np.testing.assert_array_equal(header.wavelengths, BANDS_NM)


@pytest.mark.parametrize("unit", ["Micrometers", "micrometer", "Micrometres", "microns", "um", "µm", "μm", "Unknown"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_micrometres_are_read_in_every_spelling(tmp_path: Path, unit: str, encoding: str) -> None:
    if encoding == "latin-1" and "μ" in unit:  # the Greek letter; Latin-1 has the micro sign alone
        unit = "µm"
    header = read_envi_header(
        write(tmp_path, {"wavelength units": unit, "wavelength": scaled(1000)}, encoding=encoding)
    )
    np.testing.assert_allclose(header.wavelengths, BANDS_NM)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_text_of_any_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    header = write(tmp_path, {"description": "{25 °C, Füßen}"}, encoding=encoding)
    np.testing.assert_array_equal(read_cube(header), cube_of(15, 16))


@pytest.mark.parametrize("image", ["a.img", "a.IMG", "a.cube", "a", "a.DAT", "A.img", "a.bsq", "a.float32"])
def test_values_are_found_under_any_suffix(tmp_path: Path, image: str) -> None:
    np.testing.assert_array_equal(read_cube(write(tmp_path, {}, image)), cube_of(15, 16))


def test_interleave_of_the_suffix_holds_where_the_header_has_none(tmp_path: Path) -> None:
    path = write(tmp_path, {"interleave": None}, "a.bil")
    cube_of(15, 16).transpose(1, 0, 2).tofile(tmp_path / "a.bil")
    np.testing.assert_array_equal(read_cube(path), cube_of(15, 16))


def test_header_that_is_named_after_its_image_is_read(tmp_path: Path) -> None:
    write(tmp_path, {}).rename(tmp_path / "a.img.hdr")
    np.testing.assert_array_equal(read_cube(tmp_path / "a.img.hdr"), cube_of(15, 16))


def test_two_files_of_the_right_size_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {}, "a.one")
    cube_of(15, 16).tofile(tmp_path / "a.two")
    with refusal(tmp_path / "a.img", "2 files of its size"):
        read_cube(path)


def test_gains_and_offsets_are_applied(tmp_path: Path) -> None:
    gains, offsets = np.linspace(0.1, 0.9, 31), np.linspace(0, 0.1, 31)
    lists = {"data gain values": gains, "data offset values": offsets}
    path = write(tmp_path, {key: "{" + ",".join(map(str, values)) + "}" for key, values in lists.items()})
    expected = cube_of(15, 16) * gains[:, None, None] + offsets[:, None, None]
    np.testing.assert_allclose(read_cube(path), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file compression": "1"}, "compressed"),
        ({"major frame offsets": "{4, 0}"}, "bytes between its frames"),
        ({"data reflectance gain values": "{1, 2}"}, "a gain to reflectance"),
        ({"file type": "ENVI Classification"}, "not a picture"),
        ({"data type": "6"}, "data type is 6"),
        ({"data type": None}, "data type is ''"),
        ({"interleave": None}, "interleave is ''"),
        ({"interleave": "tile"}, "interleave is 'tile'"),
        ({"wavelength units": "GHz"}, "wavelength units are 'GHz'"),
        ({"bbl": "{1, 0}"}, "bbl has 2 numbers for 31 bands"),
        ({"bbl": "{0" + ",0" * 30 + "}"}, "no pixel has data"),
        ({"data ignore value": "none"}, "data ignore value is 'none'"),
        ({"data gain values": "{a}"}, "not a number"),
        ({"data type": "2"}, "without 'reflectance scale factor'"),
    ],
)
def test_header_is_refused_with_its_reason(tmp_path: Path, changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(CCNetError, match=reason):
        read_cube(write(tmp_path, changes))


@pytest.mark.parametrize("ignored", ["0", "-9999", "nan", "inf"])
def test_pixels_without_data_are_found_in_each_band(tmp_path: Path, ignored: str) -> None:
    cube = np.maximum(cube_of(15, 16), 0.01)
    cube[7, 3, 4] = cube[9, 5, 6] = float(ignored)
    path = write(tmp_path, {"data ignore value": ignored})
    cube.tofile(tmp_path / "a.img")
    image = open_envi_image(path)
    assert np.argwhere(image.without_data(range(31))).tolist() == [[3, 4], [5, 6]]
    assert not image.without_data([0, 1]).any()


@pytest.mark.parametrize("ignored", ["0", "-9999", "nan", "inf"])
@pytest.mark.parametrize("bad", [[], [0], [7, 30]])
def test_masks_of_a_header_are_nan_and_counted(
    tmp_path: Path, ignored: str, bad: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    cube = np.maximum(cube_of(15, 16), 0.01)
    expected = cube.copy()
    cube[8, 3, 4] = cube[9, 5, 6] = float(ignored)
    expected[:, 3, 4] = expected[:, 5, 6] = expected[bad] = np.nan
    good = ",".join(str(int(index not in bad)) for index in range(31))
    path = write(tmp_path, {"data ignore value": ignored, "bbl": f"{{{good}}}"})
    cube[bad] = np.inf  # anything
    cube.tofile(tmp_path / "a.img")
    np.testing.assert_array_equal(read_cube(path), expected)
    bands = f" and {len(bad)} of 31 bands ({', '.join(str(BANDS_NM[index]) for index in bad)} nm)" if bad else ""
    assert caplog.messages == [f"{path}: 2 of 240 pixels{bands} have no data by its header: they are NaN"]


def test_nan_beside_the_masks_is_refused(tmp_path: Path) -> None:
    path, cube = write(tmp_path, {"data ignore value": "-1"}), cube_of(15, 16)
    cube[:, 3, 4], cube[5, 5, 6] = -1, np.nan
    cube.tofile(tmp_path / "a.img")
    with refusal(path, "NaN or infinite"):
        read_cube(path)


@given(st.dictionaries(st.sampled_from([*FIELDS, "bbl", "data ignore value", "data gain values"]), st.text(max_size=9)))
def test_any_text_in_a_field_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    header = write(tmp_path_factory.mktemp("envi"), changes, encoding="utf-16" if len(changes) > 6 else "utf-8")
    try:
        assert read_cube(header).shape[0] == 31
    except CCNetError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
