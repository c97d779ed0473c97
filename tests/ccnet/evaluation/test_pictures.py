"""Pictures of an evaluation are complete, repeatable and share a colour scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.evaluation.pictures import ERROR_SCALE, choose_quadrant_marks, draw_bands, draw_scene

MakeCube = Callable[..., Array]


@pytest.mark.parametrize("size", [(32, 48), (1, 1), (9, 200), (200, 9)])
@pytest.mark.parametrize("count", [1, 8])
def test_scene_is_drawn_as_a_repeatable_png(
    tmp_path: Path, make_cube: MakeCube, camera: Camera, size: tuple[int, int], count: int
) -> None:
    truth = make_cube(*size)
    cubes = {f"method {i}": truth * (1 - i / 10) for i in range(count)}
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        draw_scene(path, "scene", camera.frame(truth), truth, cubes)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == paths
    with Image.open(paths[0]) as image:
        assert image.format == "PNG" and min(image.size) > 400


def test_colour_scale_is_the_same_in_every_picture(tmp_path: Path, camera: Camera) -> None:
    """A uniform error has one colour, whatever other methods are drawn; another error has another colour."""
    truth = np.full((31, 16, 16), 0.5, np.float32)

    def colours(*errors: float) -> list[tuple[int, ...]]:
        path = tmp_path / "picture.png"
        draw_scene(path, "", camera.frame(truth), truth, {str(i): truth + error for i, error in enumerate(errors)})
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        values, counts = np.unique(pixels, axis=0, return_counts=True)
        return [tuple(colour) for colour in values[np.argsort(-counts)][: 2 + len(errors)].tolist()]

    small, large, over = (colours(error) for error in (0.1 * ERROR_SCALE, 0.9 * ERROR_SCALE, 5.0))
    (of_small,), (of_large,) = set(small) - set(large), set(large) - set(small)
    assert {of_small, of_large} <= set(colours(0.1 * ERROR_SCALE, 0.9 * ERROR_SCALE))
    assert of_large not in over and of_small not in over


def test_bands_are_drawn_as_a_png(tmp_path: Path) -> None:
    draw_bands(tmp_path / "bands.png", {"a": [0.1] * 31, "b": np.linspace(0, 1, 31).tolist()})
    with Image.open(tmp_path / "bands.png") as image:
        assert image.format == "PNG"


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CCNetError, match="cannot be made"):
        draw_bands(tmp_path / "file" / "bands.png", {"a": [0.1] * 31})


def test_marks_are_in_the_most_uniform_bright_block_of_each_quadrant() -> None:
    frame = np.random.default_rng(0).uniform(0.3, 0.7, (3, 64, 96)).astype(np.float32)
    blocks = [(8, 16), (0, 88), (56, 0), (40, 64)]
    for y, x in blocks:
        frame[:, y : y + 8, x : x + 8] = 0.5
    frame[:, 16:24, 16:24] = 0.01  # as uniform, but dark
    assert choose_quadrant_marks(frame) == [(y + 4, x + 4) for y, x in blocks]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (17, 33)])
def test_marks_lie_within_frames_of_any_size(size: tuple[int, int]) -> None:
    for frame in (np.zeros((3, *size), np.float32), np.random.default_rng(1).random((3, *size), np.float32)):
        marks = choose_quadrant_marks(frame)
        assert len(marks) == 4
        assert all(0 <= y < size[0] and 0 <= x < size[1] for y, x in marks)
