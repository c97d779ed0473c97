"""The sides of engines within a memory budget; engines that stay within one are built in ``test_plan``."""

from __future__ import annotations

import pytest

from ccnet.contract import HALO, CCNetError
from ccnet.export.engine.budget import BYTES_PER_PIXEL, ENCODE_SIDE, bytes_per_pixel, side_within
from ccnet.export.engine.plan import EngineSet
from ccnet.export.engine.report import scratch_bytes
from ccnet.runtime.tiles.context_encoder import block_side
from ccnet.runtime.tiles.host_path import ENCODE_PIXELS
from tests.runtime.conftest import manifest

FRAMES = [
    *((360, 640), (480, 640), (540, 960), (720, 1280), (1080, 1920), (1440, 2560), (2160, 3840)),
    *((400, 600), (600, 800), (800, 1280), (1024, 1280), (1088, 1456), (1200, 1600), (1200, 1920)),
    *((2048, 2448), (2464, 3280), (3000, 4000), (3000, 4096), (3024, 4032), (3040, 4056), (4000, 6000)),
]
"""Heights and widths of videos, photographs and sensors, px."""


@pytest.mark.parametrize("size", FRAMES)
def test_usual_frames_have_the_context_that_the_cpu_gives_them(size: tuple[int, int]) -> None:
    for height, width in (size, size[::-1]):
        assert block_side(height, width, ENCODE_PIXELS, ENCODE_SIDE) == block_side(
            height, width, ENCODE_PIXELS, 1 << 30
        )


@pytest.mark.parametrize("side", [336, ENCODE_SIDE])
def test_no_frame_is_larger_than_the_engine_of_encode(side: int) -> None:
    for height, width in [*FRAMES, (1, 100_000), (100_000, 30), (641, 641), (side + 1, 16), (16, side)]:
        block = block_side(height, width, ENCODE_PIXELS, side)
        reduced = [-(-length // block) for length in (height, width)]
        assert max(-(-length // 16) * 16 for length in reduced) <= side
        assert reduced[0] * reduced[1] <= ENCODE_PIXELS


def test_sides_follow_from_a_memory_budget() -> None:
    for (kind, precision), pixel in BYTES_PER_PIXEL.items():
        side = side_within(1_000_000_000, kind, precision, 16, 176)
        assert side % 16 == 0
        assert side**2 * pixel <= 1e9 < (side + 16) ** 2 * pixel
    for memory in (0, -1, 50_000_000):
        with pytest.raises(CCNetError, match="expected at least 103 MB, for encode of 176×176 px"):
            EngineSet(backend="tensorrt").within(memory, manifest(halo=HALO))


def test_both_engines_stay_within_the_budget_and_encode_within_its_default() -> None:
    small = EngineSet(backend="tensorrt").within(400_000_000, manifest(halo=HALO))
    assert (small.encode_side, small.tile, small.workspace_bytes) == (336, 416, 400_000_000)
    assert EngineSet(backend="tensorrt").within(4_000_000_000, manifest(halo=HALO)).encode_side == ENCODE_SIDE


def test_memory_of_a_pixel_counts_scratch_frame_and_cube() -> None:
    assert bytes_per_pixel("encode", 2_961_000, 1000, packed=False) == 2961 + 12
    assert bytes_per_pixel("decode", 1_824_001, 1000, packed=True) == 1825 + 3 + 31 * 4


def test_scratch_memory_is_read_from_the_builders_messages() -> None:
    assert scratch_bytes(["Total Host Persistent Memory: 80 bytes", "Total Activation Memory: 478326272 bytes"]) == (
        478_326_272
    )
    assert scratch_bytes(["no such message"]) is None
