"""The colours of a stream of raw files are those of each camera's first file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime.io.cameras.first_colours import FirstColours
from ccnet.runtime.io.cameras.raw_file import read_raw
from tests.runtime.io.cameras.dng_file import rationals, shot_with, write_dng

pytest.importorskip("rawpy", reason="rawpy is not installed: the extra raw")

LEFT, RIGHT = (0.2, 0.4, 0.24), (0.1, 0.3, 0.12)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_dng(tmp_path / "first.dng", LEFT, RIGHT)


def test_white_balance_of_the_first_file_is_kept(first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    second = write_dng(tmp_path / "second.dng", LEFT, RIGHT, changes=shot_with((0.7, 1, 0.4)))
    keep = FirstColours()
    frames = [read_raw(path, choose_colour=keep) for path in (first, second, second)]
    np.testing.assert_array_equal(frames[1], frames[0])
    assert frames[1].colour is frames[0].colour
    assert frames[1].colour.metadata() == {"white balance": "2.0000 1.0000 1.6667, as shot in first.dng"}
    assert not np.array_equal(frames[0], read_raw(second))
    (line,) = caplog.messages
    assert line.startswith("second.dng: its white balance is not that of first.dng, which the stream keeps: fix")


def test_matrix_of_the_first_file_is_kept(first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix = {50722: ("2i", 9, rationals((0.6, -0.1, -0.1, -0.3, 1.1, 0.2, 0.0, 0.2, 0.7)))}
    second = write_dng(tmp_path / "second.dng", LEFT, RIGHT, changes=matrix)
    keep = FirstColours()
    frames = [read_raw(path, choose_colour=keep) for path in (first, second)]
    assert frames[1].colour.radiometry is frames[0].colour.radiometry
    assert caplog.messages[0].startswith("second.dng: its colour matrix is not that of first.dng")


def test_each_camera_keeps_its_own(first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = write_dng(tmp_path / "other.dng", LEFT, RIGHT, "Y", shot_with((0.7, 1, 0.4)))
    keep = FirstColours()
    frames = [read_raw(path, choose_colour=keep) for path in (first, other, first)]
    np.testing.assert_array_equal(frames[1], read_raw(other))
    assert [frame.colour.file for frame in frames] == ["first.dng", "other.dng", "first.dng"]
    assert not caplog.messages


@pytest.mark.parametrize("changes", [{}, {50721: None, 50722: None}], ids=["a matrix", "no matrix"])
def test_equal_files_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: Any) -> None:
    keep = FirstColours()
    for number, red in enumerate((0.5, 0.5001)):  # a camera's rounding
        path = write_dng(tmp_path / f"{number}.dng", LEFT, RIGHT, changes=changes | shot_with((red, 1, 0.6)))
        read_raw(path, choose_colour=keep)
    assert not caplog.messages
