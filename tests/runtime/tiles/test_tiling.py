"""The spans of a plan cover the frame once, keep a halo and lie on the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.contract import HALO, SIZE_MULTIPLE, CCNetError, padded_size
from ccnet.runtime.tiles.tiling import Span, crop, plan

GRID = 16


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Draw size, tile, halo and least, all in px."""
    halo = GRID * draw(st.integers(0, 5))
    tile = 2 * halo + GRID * draw(st.integers(1, 20))
    least = draw(st.sampled_from([0, GRID, tile // 2 // GRID * GRID, tile]))
    return draw(st.integers(1, 3000)), tile, halo, least


@given(cases())
def test_kept_parts_are_disjoint_and_cover_the_frame(case: tuple[int, int, int, int]) -> None:
    size, tile, halo, least = case
    owner = np.zeros(size, int)
    for span in plan(size, tile, halo, multiple=GRID, least=least):
        assert span.first < span.last
        owner[span.first : span.last] += 1
    assert (owner == 1).all()


@given(cases())
def test_kept_parts_are_a_halo_from_tile_edges_inside_the_frame(case: tuple[int, int, int, int]) -> None:
    size, tile, halo, least = case
    for span in plan(size, tile, halo, multiple=GRID, least=least):
        assert span.start == 0 or span.first - span.start >= halo
        assert span.last == size or span.stop - span.last >= halo


@given(cases())
def test_spans_have_one_length_and_lie_on_the_grid(case: tuple[int, int, int, int]) -> None:
    size, tile, halo, least = case
    spans = plan(size, tile, halo, multiple=GRID, least=least)
    (length,) = {span.stop - span.start for span in spans}
    assert max(least, GRID) <= length <= tile
    assert all(span.start % GRID == 0 for span in spans)
    assert length % GRID == 0
    assert spans[0].start == 0
    assert spans[-1].stop == max(padded_size(size, GRID), least)
    assert [span.start for span in spans] == sorted({span.start for span in spans})


@given(cases())
def test_number_and_length_of_spans_are_minimal(
    case: tuple[int, int, int, int],
) -> None:
    size, tile, halo, least = case
    spans = plan(size, tile, halo, multiple=GRID, least=least)
    count, length, extent = len(spans), spans[0].stop, spans[-1].stop

    def reach(count: int, length: int) -> int:
        return length + (count - 1) * (length - 2 * halo)

    assert reach(count, length) >= extent
    assert count == 1 or reach(count - 1, tile) < extent
    assert length - GRID < max(least, GRID) or reach(count, length - GRID) < extent


@pytest.mark.parametrize(
    ("size", "tile", "halo", "spans"),
    [
        (1, 48, 16, [Span(0, 16, 0, 1)]),
        (48, 48, 16, [Span(0, 48, 0, 48)]),
        (49, 48, 16, [Span(0, 48, 0, 32), Span(16, 64, 32, 49)]),
        (640, 512, 64, [Span(0, 384, 0, 320), Span(256, 640, 320, 640)]),
    ],
)
def test_plans_equal_hand_computed_spans(size: int, tile: int, halo: int, spans: list[Span]) -> None:
    assert plan(size, tile, halo, multiple=GRID) == spans


@pytest.mark.parametrize("tile", [0, -16, 32, 40, 100])
def test_tile_off_the_grid_or_without_room_is_refused(tile: int) -> None:
    with pytest.raises(CCNetError, match=f"tile is {tile} px, expected a multiple of 16 of at least 48 px"):
        plan(100, tile, 16, multiple=GRID)


@pytest.mark.parametrize(("size", "least"), [(0, 0), (100, 64)])
def test_misuse_is_a_value_error(size: int, least: int) -> None:
    with pytest.raises(ValueError, match="expected size > 0"):
        plan(size, 48, 16, multiple=GRID, least=least)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([0, 16, 48]))
def test_crop_pads_by_reflection_at_the_right_and_the_bottom(height: int, width: int, least: int) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    rows, columns = (plan(size, 48, 16, multiple=GRID, least=least) for size in (height, width))
    whole = np.pad(frame, ((0, rows[-1].stop - height), (0, columns[-1].stop - width), (0, 0)), "reflect")
    for y in rows:
        for x in columns:
            np.testing.assert_array_equal(crop(frame, y, x), whole[y.start : y.stop, x.start : x.stop])


def test_tile_inside_the_frame_copies_nothing() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    assert np.shares_memory(crop(frame, Span(16, 64, 32, 64), Span(0, 48, 0, 32)), frame)


def test_100_megapixels_cost_at_most_15_percent_more_a_pixel_than_one() -> None:
    """Compare the pixels that decode reads for a pixel of the cube; the time is proportional to them."""

    def seen(side: int) -> float:
        spans = plan(side, 512, HALO, multiple=SIZE_MULTIPLE)
        return (sum(span.stop - span.start for span in spans) / side) ** 2

    assert seen(1000) < seen(10_000) <= 1.15 * seen(1000)
