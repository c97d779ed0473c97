"""Plans stay within their budget, are exact, and compute no more pixels than square tiles would."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet.contract import CCNetError
from ccnet.runtime.tiles import planner
from ccnet.runtime.tiles.memory import BASE_BYTES
from ccnet.runtime.tiles.planner import FramePlan, TileRules, plan_frame, smaller
from ccnet.runtime.tiles.tiling import plan

GRID = 16
PAPER = TileRules(halo=64, multiple=16, least=16, most=1 << 30, tile_bytes=800, base_bytes=200_000_000)


@st.composite
def rules(draw: st.DrawFn) -> TileRules:
    halo = GRID * draw(st.integers(0, 5))
    most = GRID * draw(st.integers(2 * halo // GRID + 1, 150))
    return TileRules(
        halo=halo,
        multiple=GRID,
        least=min(GRID * draw(st.integers(1, 20)), most),
        most=most,
        memory=draw(st.none() | st.integers(1, 3_000_000_000)),
        tile_bytes=draw(st.integers(0, 4000)),
        base_bytes=draw(st.sampled_from([0, 200_000_000])),
        strip_bytes=draw(st.sampled_from([0, 124])),
    )


sizes = st.integers(1, 3000)


def memory(found: FramePlan, height: int, width: int, frame_bytes: int, by: TileRules) -> int:
    """Return the memory of a plan, counted without the code under test."""
    tile_height, tile_width = found.tile
    tallest = max(y.last - y.first for y in found.rows)
    strip = by.strip_bytes * tallest * width if found.tiles > 1 else 0
    return by.base_bytes + frame_bytes + by.tile_bytes * tile_height * tile_width + strip


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 10**7), rules())
def test_plan_never_exceeds_its_budget(height: int, width: int, frame_bytes: int, by: TileRules) -> None:
    try:
        found = plan_frame(height, width, frame_bytes, by)
    except CCNetError as error:
        assert by.memory is not None
        least = plan_frame(height, width, frame_bytes, replace(by, is_soft=True))
        assert least.memory > by.memory
        assert "allow more" in str(error) and f"{width}×{height} px" in str(error)
        return
    assert memory(found, height, width, frame_bytes, by) <= found.memory
    assert by.memory is None or found.memory <= by.memory


@settings(max_examples=40)
@given(sizes, sizes, rules())
def test_kept_parts_cover_each_pixel_once(height: int, width: int, by: TileRules) -> None:
    found = plan_frame(height, width, 0, replace(by, is_soft=True))
    for size, spans in ((height, found.rows), (width, found.columns)):
        assert [span.first for span in spans] == [0, *(span.last for span in spans[:-1])]
        assert spans[-1].last == size
        assert all(span.first < span.last for span in spans)


@settings(max_examples=40)
@given(sizes, sizes, rules())
def test_kept_parts_are_a_halo_from_tile_edges_inside_the_frame(height: int, width: int, by: TileRules) -> None:
    found = plan_frame(height, width, 0, replace(by, is_soft=True))
    for size, spans in ((height, found.rows), (width, found.columns)):
        for span in spans:
            assert span.start == 0 or span.first - span.start >= by.halo
            assert span.last == size or span.stop - span.last >= by.halo
            assert span.start % GRID == 0 and (span.stop - span.start) % GRID == 0
            assert by.least <= span.stop - span.start <= by.most


@settings(max_examples=40)
@given(sizes, sizes, rules(), st.integers(1, 150))
def test_plan_computes_no_more_pixels_than_squares(height: int, width: int, by: TileRules, side: int) -> None:
    side = GRID * side
    if not by.smallest <= side <= by.most:
        return
    rows, columns = (tuple(plan(size, side, by.halo, multiple=GRID, least=by.least)) for size in (height, width))
    square = FramePlan(rows, columns, 0)
    if by.memory is not None and memory(square, height, width, 0, by) > by.memory - by.strip_bytes * by.halo * width:
        return
    assert plan_frame(height, width, 0, by).pixels <= square.pixels


@settings(max_examples=40)
@given(sizes, sizes, rules())
def test_smaller_rules_give_smaller_tiles_until_none_is_left(height: int, width: int, by: TileRules) -> None:
    current: TileRules | None = replace(by, memory=None, is_soft=True)
    pixels = []
    while current is not None and len(pixels) < 50:
        found = plan_frame(height, width, 0, current)
        pixels.append(found.tile[0] * found.tile[1])
        current = smaller(current, found)
    assert current is None
    assert all(after < before for before, after in pairwise(pixels))


@settings(max_examples=40)
@given(sizes, sizes)
def test_more_memory_never_computes_more_pixels(height: int, width: int) -> None:
    budgets = (400_000_000, 700_000_000, 1_500_000_000, None)
    plans = [plan_frame(height, width, 0, replace(PAPER, memory=budget, is_soft=True)) for budget in budgets]
    assert [found.pixels for found in plans] == sorted((found.pixels for found in plans), reverse=True)


def test_fixed_side_is_used_as_it_is() -> None:
    found = plan_frame(1080, 1920, 0, replace(PAPER, tile=512))
    assert found.rows == tuple(plan(1080, 512, 64)) and found.columns == tuple(plan(1920, 512, 64))


def test_rectangles_win_where_the_frame_is_wide() -> None:
    """A frame of one strip needs no halo above and below, which no square tile can give it."""
    found = plan_frame(512, 8192, 0, replace(PAPER, memory=1_000_000_000))
    height, width = found.tile
    assert len(found.rows) == 1 and height == 512 and width > height


@pytest.mark.parametrize(
    ("size", "frame_bytes", "most"),
    [((3000, 4000), 3, 1.15), ((3000, 4000), 15, 1.15), ((10_000, 10_000), 3, 1.21)],
)
def test_large_frames_within_2_gb_compute_little_twice(size: tuple[int, int], frame_bytes: int, most: float) -> None:
    """With a halo of 80 px and what graphs with compiled operators state, written part by part."""
    by = replace(PAPER, halo=80, memory=2_000_000_000, tile_bytes=600, base_bytes=BASE_BYTES, strip_bytes=0)
    found = plan_frame(*size, frame_bytes * size[0] * size[1], by)
    assert found.pixels_per_kept <= most and found.memory <= 2_000_000_000


@pytest.mark.parametrize(("size", "most"), [((10_000, 10_000), 2500), ((1000, 100_000), 2500), ((1080, 1920), 400)])
def test_few_grids_are_compared(size: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length on the grid of 16 px as a candidate would be 380,000 grids at 10,000×10,000 px."""
    rank, ranked = planner._rank, []

    def count(grid: Any, *arguments: Any) -> Any:
        ranked.append(grid)
        return rank(grid, *arguments)

    monkeypatch.setattr(planner, "_rank", count)
    plan_frame.__wrapped__(*size, 0, replace(PAPER, memory=2_000_000_000, is_soft=True))
    assert 1 < len(ranked) <= most


def test_description_names_number_size_cost_and_memory() -> None:
    found = plan_frame(1024, 2048, 0, replace(PAPER, tile=1024))
    assert found.describe() == "3×1 of 768×1024 px, 1.12 pixels computed per pixel kept, about 1089 MB"
    assert found.pixels == 3 * 768 * 1024 and np.isclose(found.pixels_per_kept, 1.125)
