"""``ccnet reconstruct`` with other cameras, exposure and white: what it prints, warns of and writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.runtime import read_cube
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.io.srgb import from_srgb
from tests.runtime.io.cameras.dng_file import write_dng

Ccnet = Callable[..., Any]


def test_known_camera_is_named_and_its_matrix_used(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--radiometry", "nikon d700", "--exposure", "-1")
    assert result.code == 0 and result.err == ""
    assert "Nikon D700 in daylight, by its colour matrix, gains 0.5, 0.5, 0.5" in result.out
    header = Path("photo.hdr").read_text()
    assert "ccnet radiometry camera = Nikon D700" in header and "ccnet exposure = -1.0" in header
    matrix = np.array(Radiometry.find("Nikon D700").matrix)
    pixels = np.clip(np.asarray(Image.open("photo.png")) / 510 @ matrix.T, 0, 1)
    np.testing.assert_allclose(read_cube(Path("photo.hdr"))[30], pixels[..., 0], atol=1e-5)


def test_camera_without_a_matrix_is_warned_of(work: Path, ccnet: Ccnet) -> None:
    Path("camera.json").write_text('{"gains": [1.5, 1, 2]}')
    result = ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--radiometry", "camera.json")
    assert result.code == 0 and "no colour matrix" in result.err and result.err.count("\n") == 1


def test_exposure_of_a_photograph(work: Path, ccnet: Ccnet) -> None:
    assert ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--exposure", "-1").code == 0
    pixels = from_srgb(np.asarray(Image.open("photo.png")))
    np.testing.assert_allclose(read_cube(Path("photo.npy"))[30], pixels[..., 0] / 2, atol=1e-6)


def test_photograph_that_is_read_as_linear_light_is_warned_of(work: Path, ccnet: Ccnet) -> None:
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save("photo.jpg")
    options = ("reconstruct", "photo.jpg", "-o", "photo.hdr", "--radiometry")
    result = ccnet(*options, "Nikon D700")
    assert (result.code, result.err.count("\n")) == (0, 1) and "photo.jpg: --radiometry takes the values" in result.err
    Path("gamma.json").write_text('{"camera": "Nikon D700", "light": "daylight", "transfer": "srgb"}')
    assert ccnet(*options, "gamma.json").err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--radiometry", "Nikon D7001"), "'Nikon D7001' is no file and not known: did you mean"),
        (("--radiometry", "none.json"), "none.json"),
        (("--exposure", "bright"), "--exposure is 'bright'"),
        (("--white", "70,0"), "expected a pixel of the 70×40 px frame"),
    ],
)
def test_errors_are_one_line(
    work: Path, ccnet: Ccnet, arguments: tuple[str, ...], words: str, assert_refused: Callable[[Any, str], None]
) -> None:
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "photo.hdr", *arguments), words)


def test_raw_file_brings_its_camera(work: Path, ccnet: Ccnet) -> None:
    pytest.importorskip("rawpy", reason="rawpy is not installed: the extra raw")
    write_dng(work / "frame.dng", (0.2, 0.4, 0.24), (0.1, 0.3, 0.12), "D700", {271: ("s", 0, "Nikon")})
    result = ccnet("reconstruct", "frame.dng", "-o", "frame.hdr")
    assert result.code == 0 and result.err == "" and "Nikon D700 in" in result.out
    np.testing.assert_allclose(read_cube(Path("frame.hdr"))[:, 20, 10], 0.4, atol=1e-3)  # grey in the camera's white
    assert "ccnet radiometry camera = Nikon D700" in Path("frame.hdr").read_text()
    write_dng(work / "other.dng", (0.2, 0.4, 0.24), (0.1, 0.3, 0.12), changes={50721: None, 50722: None})
    assert "Test X, no colour matrix" in ccnet("reconstruct", "other.dng", "-o", "other.hdr").err


def test_stream_takes_the_same_options_and_records_its_gains(work: Path, ccnet: Ccnet) -> None:
    (work / "frames").mkdir()
    Image.open("photo.png").save("frames/a.png")
    options = ("--radiometry", "nikon d700", "--exposure", "-1")
    assert ccnet("stream", "frames", "--sink", "streamed", *options).code == 0
    assert ccnet("reconstruct", "frames/a.png", "-o", "single", *options).code == 0
    np.testing.assert_array_equal(read_cube(Path("streamed/a.hdr")), read_cube(Path("single/a.hdr")))
    header = Path("streamed/a.hdr").read_text()
    assert "ccnet gains = 0.5000 0.5000 0.5000" in header and "ccnet radiometry camera = Nikon D700" in header
