"""Tables and pictures of an evaluation: what they say, and that they are always the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ccnet.contract import CCNetError
from ccnet.data.camera import Array, Camera
from ccnet.evaluation.evaluate import SceneScore, cube_metrics
from ccnet.evaluation.report import ERROR_SCALE, choose_marks, draw_bands, draw_scene, tables

MakeCube = Callable[..., Array]


def shown(scores: dict[str, list[SceneScore]], per_scene: bool = False) -> str:
    console = Console(width=80, record=True, quiet=True)
    with console.capture() as said:
        console.quiet = False
        console.print(*tables(scores, per_scene), sep="\n")
    return said.get()


@pytest.fixture
def scores(make_cube: MakeCube) -> dict[str, list[SceneScore]]:
    truths = [make_cube(8, 8, seed) + 0.01 for seed in (0, 1)]

    def of(factor: float) -> list[SceneScore]:
        return [
            SceneScore(
                scene=f"scene {i}", full=cube_metrics(t, t * factor), ntire=cube_metrics(t, t / factor), seconds=i + 1.5
            )
            for i, t in enumerate(truths)
        ]

    return {"CCNet + ensemble": of(0.9), "root-polynomial 3": of(0.5)}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def test_a_table_holds_mean_and_spread_of_both_protocols(scores: dict[str, list[SceneScore]]) -> None:
    text = shown(scores)
    assert max(map(len, text.splitlines())) <= 80
    assert "whole scenes, 2 of them" in text and "NTIRE's centre crop, 2 of them" in text
    rows = cells(text)
    assert [row[0] for row in rows] == 2 * ["CCNet + ensemble", "", "root-polynomial 3", ""]
    full = [score.full for score in scores["CCNet + ensemble"]]
    assert float(rows[0][1]) == pytest.approx((full[0].mrae + full[1].mrae) / 2, abs=1e-4)
    assert float(rows[1][1].removeprefix("±")) == pytest.approx(
        abs(full[0].mrae - full[1].mrae) / math.sqrt(2), abs=1e-4
    )
    assert float(rows[0][2]) == pytest.approx(0.1, abs=1e-4)  # plain MRAE of nine tenths
    assert float(rows[4][2]) == pytest.approx(1 / 0.9 - 1, abs=1e-4)  # and of ten ninths, in the crop
    assert rows[0][6] == "2.00"


def test_what_is_not_defined_is_a_dash(scores: dict[str, list[SceneScore]]) -> None:
    first = scores["root-polynomial 3"]
    first[0] = replace(first[0], full=replace(first[0].full, mrae_ntire=math.inf))
    rows = cells(shown(scores))
    assert rows[2][2] == "–" and rows[3][2] == ""
    assert rows[0][2] != "–"


def test_scenes_have_their_own_tables_when_asked(scores: dict[str, list[SceneScore]]) -> None:
    text = shown(scores, per_scene=True)
    rows = cells(text)
    assert text.index("scene 0") < text.index("scene 1") < text.index("whole scenes")
    assert len(rows) == 2 * 2 + 2 * 4
    assert float(rows[0][1]) == pytest.approx(scores["CCNet + ensemble"][0].full.mrae, abs=1e-4)
    assert not any("±" in cell for row in rows[:4] for cell in row)


@pytest.mark.parametrize("size", [(32, 48), (1, 1), (9, 200), (200, 9)])
@pytest.mark.parametrize("count", [1, 8])
def test_a_scene_becomes_one_whole_png(
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


def test_one_colour_is_one_error_in_every_picture(tmp_path: Path, camera: Camera) -> None:
    """A map of an even error is even in colour, the same beside any other method, and another error's is another."""
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


def test_bands_become_a_png(tmp_path: Path) -> None:
    draw_bands(tmp_path / "bands.png", {"a": [0.1] * 31, "b": np.linspace(0, 1, 31).tolist()})
    with Image.open(tmp_path / "bands.png") as image:
        assert image.format == "PNG"


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match="cannot be written"):
        draw_bands(tmp_path / "nowhere" / "bands.png", {"a": [0.1] * 31})


def test_marks_are_in_the_evenest_lit_block_of_each_quadrant() -> None:
    frame = np.random.default_rng(0).uniform(0.3, 0.7, (3, 64, 96)).astype(np.float32)
    blocks = [(8, 16), (0, 88), (56, 0), (40, 64)]
    for y, x in blocks:
        frame[:, y : y + 8, x : x + 8] = 0.5
    frame[:, 16:24, 16:24] = 0.01  # as even, and dark
    assert choose_marks(frame) == [(y + 4, x + 4) for y, x in blocks]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (17, 33)])
def test_marks_are_in_frames_of_any_size(size: tuple[int, int]) -> None:
    for frame in (np.zeros((3, *size), np.float32), np.random.default_rng(1).random((3, *size), np.float32)):
        marks = choose_marks(frame)
        assert len(marks) == 4
        assert all(0 <= y < size[0] and 0 <= x < size[1] for y, x in marks)
