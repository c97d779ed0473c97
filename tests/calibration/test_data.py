"""Frames to calibrate on: crops, refusals, and the choice of frames that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ccnet.calibration.data import read_frames, select_diverse
from ccnet.contract import CCNetError
from ccnet.runtime.io.frames import Frame


def flat(level: int, side: int = 32) -> Frame:
    return np.full((side, side, 3), level, np.uint8)


def test_crops_are_central_and_on_the_grid(photos: Path) -> None:
    frames = read_frames([photos], side=480, multiple=16, max_frames=9)
    assert {path.name: frame.shape for path, frame in frames.items()} == {
        "astronaut.png": (480, 480, 3),
        "coffee.jpg": (400, 480, 3),
    }
    np.testing.assert_array_equal(frames[photos / "astronaut.png"], skimage.data.astronaut()[16:496, 16:496])


@pytest.mark.parametrize("other", ["again.png", "again.bmp"])
def test_repeated_frame_is_refused(photos: Path, other: str) -> None:
    Image.fromarray(skimage.data.astronaut()).save(photos / other)
    with pytest.raises(CCNetError, match=r"astronaut\.png.*expected different frames"):
        read_frames([photos], side=64, multiple=16, max_frames=9)


def test_same_file_twice_is_refused(photos: Path) -> None:
    with pytest.raises(CCNetError, match="expected different frames"):
        read_frames([photos, photos / "coffee.jpg"], side=64, multiple=16, max_frames=9)


@pytest.mark.parametrize(
    ("side", "max_frames", "words"), [(24, 1, "side is 24"), (0, 1, "side is 0"), (64, 0, "at most 0")]
)
def test_invalid_sizes_are_refused(photos: Path, side: int, max_frames: int, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        read_frames([photos], side=side, multiple=16, max_frames=max_frames)


def test_frame_smaller_than_the_networks_grid_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", flat(0, 20))
    with pytest.raises(CCNetError, match=r"small\.npy: 20×20 px, expected at least 32 px"):
        read_frames([tmp_path / "small.npy"], side=64, multiple=32, max_frames=1)


def test_most_different_frames_are_chosen() -> None:
    frames = [flat(level) for level in (100, 101, 250, 102, 0)]
    assert select_diverse(frames, 3) == [0, 2, 4]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=8), st.integers(1, 9))
def test_selected_frames_are_distinct(levels: list[int], max_frames: int) -> None:
    chosen = select_diverse([flat(level, 16) for level in levels], max_frames)
    assert len(chosen) == len(set(chosen)) == min(max_frames, len(levels))
    assert set(chosen) <= set(range(len(levels)))
