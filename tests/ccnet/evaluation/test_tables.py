"""Tables of an evaluation: mean, spread and single scenes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from ccnet.data.camera import Array
from ccnet.evaluation.evaluate import SceneScore, cube_metrics
from ccnet.evaluation.tables import score_tables

MakeCube = Callable[..., Array]


def printed(scores: dict[str, list[SceneScore]], per_scene: bool = False) -> str:
    console = Console(width=80, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(*score_tables(scores, per_scene), sep="\n")
    return captured.get()


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


def test_table_holds_mean_and_spread_of_whole_scenes_and_crops(scores: dict[str, list[SceneScore]]) -> None:
    text = printed(scores)
    assert max(map(len, text.splitlines())) <= 80
    assert "whole scenes, 2 of them" in text and "NTIRE's centre crop, 2 of them" in text
    rows = cells(text)
    assert [row[0] for row in rows] == [
        *2 * ["CCNet + ensemble", "", "root-polynomial 3", ""], "CCNet + ensemble", "root-polynomial 3"
    ]  # fmt: skip
    full = [score.full for score in scores["CCNet + ensemble"]]
    assert float(rows[0][1]) == pytest.approx((full[0].mrae + full[1].mrae) / 2, abs=1e-4)
    assert float(rows[1][1].removeprefix("±")) == pytest.approx(
        abs(full[0].mrae - full[1].mrae) / math.sqrt(2), abs=1e-4
    )
    assert float(rows[0][2]) == pytest.approx(0.1, abs=1e-4)  # plain MRAE of nine tenths
    assert float(rows[4][2]) == pytest.approx(1 / 0.9 - 1, abs=1e-4)  # and of ten ninths, in the crop
    assert rows[0][6] == "2.00"


def test_last_table_has_lit_pixels_and_other_brightness(scores: dict[str, list[SceneScore]]) -> None:
    results = [scores["CCNet + ensemble"][0].full, scores["root-polynomial 3"][0].full]
    first, second = (
        [replace(score, lit=result, dimmed={0.5: result}) for score in method_scores]
        for method_scores, result in zip(scores.values(), results, strict=True)
    )
    rows = cells(printed({"a": first, "b": [replace(second[0], lit=None), second[1]]}))
    assert rows[-2][:5] == [
        "a", f"{results[0].mrae:.4f}", f"{results[0].psnr:.2f}", f"{results[0].sam:.2f}", f"{results[0].psnr:.2f}"
    ]  # fmt: skip
    assert rows[-1][1:4] == 3 * ["–"] and rows[-1][4] == f"{results[1].psnr:.2f}"
    assert float(rows[-2][5]) > 100 and float(rows[-1][5]) > 100  # estimates that differ from the truth by a factor


def test_undefined_metric_is_a_dash(scores: dict[str, list[SceneScore]]) -> None:
    first = scores["root-polynomial 3"]
    first[0] = replace(first[0], full=replace(first[0].full, mrae_ntire=math.inf))
    rows = cells(printed(scores))
    assert rows[2][2] == "–" and rows[3][2] == ""
    assert rows[0][2] != "–"


def test_per_scene_adds_a_table_for_each_scene(scores: dict[str, list[SceneScore]]) -> None:
    text = printed(scores, per_scene=True)
    rows = cells(text)
    assert text.index("scene 0") < text.index("scene 1") < text.index("whole scenes")
    assert len(rows) == 2 * 2 + 2 * 4 + 2
    assert float(rows[0][1]) == pytest.approx(scores["CCNet + ensemble"][0].full.mrae, abs=1e-4)
    assert not any("±" in cell for row in rows[:4] for cell in row)
