"""Colours of known spectra, and the picture as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.viz.plots import Thumbnail, choose_marks, heat_map, picture, render

NM = np.array(BANDS_NM)
Pixels = npt.NDArray[Any]


def scene(height: int, width: int, dtype: str = "uint8") -> tuple[Pixels, Pixels]:
    """A frame of colour patches and a cube of three broad bands from it."""
    patches = np.random.default_rng(3).random((4, 4, 3))
    frame = patches[np.arange(height)[:, None] * 4 // height, np.arange(width) * 4 // width]
    bands = np.stack([NM > 580, (NM > 490) & (NM <= 580), NM <= 490]).astype(np.float32)
    cube = np.einsum("cb,hwc->bhw", bands, frame).astype(np.float32)
    if dtype == "float32":
        return frame.astype(np.float32), cube
    return (frame * np.iinfo(dtype).max).astype(dtype), cube


@pytest.mark.parametrize(("reflectance", "grey"), [(0.0, 0), (0.001, 3), (0.18, 118), (0.5, 188), (1.0, 255), (7, 255)])
def test_grey_reflectance_is_neutral_and_on_a_fixed_scale(reflectance: float, grey: int) -> None:
    alone = render(np.full((31, 2, 3), reflectance, np.float32))
    assert alone.dtype == np.uint8 and alone.shape == (2, 3, 3)
    assert (alone == grey).all()
    beside_white = np.ones((31, 1, 2), np.float32)
    beside_white[:, 0, 0] = reflectance
    assert (render(beside_white)[0, 0] == grey).all()


@pytest.mark.parametrize(
    ("low", "high", "order"),
    [(600, 700, "rgb"), (500, 570, "grb"), (400, 480, "brg"), (500, 700, "rgb"), (400, 560, "bgr")],
)
def test_a_band_of_wavelengths_has_its_colour(low: int, high: int, order: str) -> None:
    spectrum = ((low <= NM) & (high >= NM)).astype(np.float32) * 0.8
    colour = dict(zip("rgb", render(spectrum[:, None, None])[0, 0].astype(int), strict=True))
    assert colour[order[0]] >= colour[order[1]] >= colour[order[2]]
    assert colour[order[0]] - colour[order[2]] > 60


def test_rendering_in_blocks_of_rows_is_the_same_everywhere() -> None:
    cube = np.random.default_rng(0).random((31, 200, 2), np.float32)
    whole = render(cube)
    for y in (0, 63, 64, 150, 199):
        assert np.array_equal(render(cube[:, y : y + 1]), whole[y : y + 1])


@pytest.mark.parametrize(
    ("height", "width", "dtype"),
    [
        (40, 64, "uint8"),
        (40, 64, "uint16"),
        (40, 64, "float32"),
        (1, 1, "uint8"),
        (16, 1000, "uint8"),
        (70, 16, "uint8"),
    ],
)
def test_a_picture_is_a_whole_png_and_the_same_each_time(tmp_path: Path, height: int, width: int, dtype: str) -> None:
    frame, cube = scene(height, width, dtype)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        picture(frame, cube, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == paths
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and min(image.size) > 400


def test_marks_given_are_the_marks_drawn(tmp_path: Path) -> None:
    frame, cube = scene(40, 64)
    for name, marks in (("chosen", choose_marks(frame)), ("others", [(1, 1), (2, 2)])):
        picture(frame, cube, tmp_path / f"{name}.png", marks=marks)
    picture(frame, cube, tmp_path / "default.png")
    default, chosen, others = ((tmp_path / f"{name}.png").read_bytes() for name in ("default", "chosen", "others"))
    assert default == chosen != others


def test_four_colours_get_one_mark_each() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (190, 190, 190)]
    for index, colour in enumerate(colours):
        frame[:, 50 * index : 50 * index + 50] = colour
    marks = choose_marks(frame)
    assert {tuple(frame[y, x].tolist()) for y, x in marks} == set(colours)


def test_marks_avoid_the_dark_and_the_edges() -> None:
    frame = np.full((96, 96, 3), 3, np.uint8)
    frame[24:72, 24:72] = (180, 150, 120)
    frame[24:72, 48] = (255, 0, 0)
    for y, x in choose_marks(frame):
        assert frame[y, x].tolist() == [180, 150, 120]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_frame_of_one_colour_still_gets_four_different_marks(value: int) -> None:
    assert len(set(choose_marks(np.full((60, 30, 3), value, np.uint8)))) == 4


@pytest.mark.parametrize("size", [(30, 50), (1024, 9), (1025, 9), (2500, 33), (9, 3000)])
def test_a_thumbnail_of_strips_is_that_of_the_cube(size: tuple[int, int]) -> None:
    frame, cube = scene(*size)
    thumbnail = Thumbnail(*size)
    for top in range(0, size[0], 7):
        thumbnail.write(top, cube[:, top : top + 7])
    step = max(-(-side // 1024) for side in size)
    assert np.array_equal(thumbnail.cube, cube[:, ::step, ::step])
    assert np.array_equal(thumbnail.thin(frame), frame[::step, ::step])


def test_a_heat_map_is_on_a_fixed_scale_and_marks_what_is_not_judged(tmp_path: Path) -> None:
    frame, _ = scene(40, 64)

    def drawn(value: float) -> Pixels:
        heat_map(frame, np.full((40, 64), value, np.float32), "Residual", tmp_path / "map.png")
        with Image.open(tmp_path / "map.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        return pixels[pixels.shape[0] // 2, int(0.7 * pixels.shape[1])].astype(int)

    values = (0.0, 0.05, 0.1, 0.2)
    brightness = [int(drawn(value).sum()) for value in values]
    assert brightness == sorted(brightness) and len(set(brightness)) == len(values)
    assert drawn(0.5).tolist() == [255, 255, 255]
    assert drawn(float("nan")).tolist() == [0x56, 0xB4, 0xE9]
    with pytest.raises(ValueError, match="as high and wide as the frame"):
        heat_map(frame, np.zeros((40, 63), np.float32), "Residual", tmp_path / "map.png")


def test_bad_paths_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    frame, cube = scene(16, 16)
    (tmp_path / "taken.png").mkdir()
    for path, said in {
        tmp_path / "picture.jpg": "expected .png",
        tmp_path / "taken.png": "is a directory",
        tmp_path / "nowhere" / "picture.png": "does not exist",
    }.items():
        with pytest.raises(CCNetError, match=said):
            picture(frame, cube, path)
    assert list(tmp_path.iterdir()) == [tmp_path / "taken.png"]


def test_cube_and_frame_must_have_one_size(tmp_path: Path) -> None:
    frame, cube = scene(16, 17)
    with pytest.raises(ValueError, match="as high and wide as the frame"):
        picture(frame, cube[..., :-1], tmp_path / "picture.png")
