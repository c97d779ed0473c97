"""Pictures that are written as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.viz.marks import choose_marks
from ccnet.runtime.viz.plots import difference, heat_map, picture

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
def test_picture_is_a_complete_and_repeatable_png(tmp_path: Path, height: int, width: int, dtype: str) -> None:
    frame, cube = scene(height, width, dtype)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        picture(frame, cube, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == paths
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and min(image.size) > 400


def test_passed_marks_are_drawn(tmp_path: Path) -> None:
    frame, cube = scene(40, 64)
    for name, marks in (("chosen", choose_marks(frame)), ("others", [(1, 1), (2, 2)])):
        picture(frame, cube, tmp_path / f"{name}.png", marks=marks)
    picture(frame, cube, tmp_path / "default.png")
    default, chosen, others = ((tmp_path / f"{name}.png").read_bytes() for name in ("default", "chosen", "others"))
    assert default == chosen != others


def test_heat_map_has_a_fixed_scale_and_marks_nan(tmp_path: Path) -> None:
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


def test_invalid_paths_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    frame, cube = scene(16, 16)
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").touch()
    for path, said in {
        tmp_path / "picture.jpg": "expected .png",
        tmp_path / "taken.png": "is a directory",
        tmp_path / "file" / "picture.png": "cannot be made",
    }.items():
        with pytest.raises(CCNetError, match=said):
            picture(frame, cube, path)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "taken.png"]


def test_cube_and_frame_must_have_one_size(tmp_path: Path) -> None:
    frame, cube = scene(16, 17)
    with pytest.raises(ValueError, match="as high and wide as the frame"):
        picture(frame, cube[..., :-1], tmp_path / "picture.png")


def test_difference_between_the_shown_pixels_is_drawn(tmp_path: Path) -> None:
    """A map of 2000 px is thinned by 2; differences in odd columns alone must still appear."""
    frame, spectrum = np.zeros((40, 2000, 3), np.uint8), np.zeros(31)

    def drawn(value: float) -> bytes:
        differences = np.zeros(frame.shape[:2])
        differences[0, 0] = 1  # the same scale in every picture
        differences[:, 1001:1101:2] = value
        difference(frame, differences, (0, 0), spectrum, spectrum, "Difference", tmp_path / "difference.png")
        return (tmp_path / "difference.png").read_bytes()

    assert drawn(0) != drawn(1)
