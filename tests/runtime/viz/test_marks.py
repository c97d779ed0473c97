"""The choice of marked pixels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ccnet.runtime.viz.marks import choose_marks


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


def test_marks_avoid_the_edge_of_the_frame() -> None:
    frame = np.full((96, 96, 3), 120, np.uint8)
    frame[:2], frame[-2:], frame[:, :2], frame[:, -2:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)
    assert all(frame[y, x].tolist() == [120, 120, 120] for y, x in choose_marks(frame))


def test_symbols_of_marks_do_not_overlap() -> None:
    frame = np.full((96, 96, 3), 120, np.uint8)
    for number, colour in enumerate([(200, 0, 0), (0, 200, 0), (0, 0, 200)]):
        frame[40:46, 40 + 3 * number : 43 + 3 * number] = colour
    marks = choose_marks(frame)
    distances = [math.dist(one, other) for one, other in itertools.combinations(marks, 2)]
    assert len(distances) == 6 and min(distances) >= 7


@pytest.mark.parametrize("value", [0, 128, 255])
def test_frame_of_one_colour_still_gets_four_different_marks(value: int) -> None:
    assert len(set(choose_marks(np.full((60, 30, 3), value, np.uint8)))) == 4
