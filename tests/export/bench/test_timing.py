"""The benchmark harness: how variants take turns and how their times are summarised; no test depends on a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.export.bench import timing
from ccnet.export.bench.timing import Measurement, Timing, take_turns


def test_ratio_is_of_the_medians() -> None:
    slow, fast = Timing.of([0.006, 0.9, 0.003]), Timing.of([0.002, 0.001, 0.07])
    assert (slow.median, slow.least, slow.most) == pytest.approx((6, 3, 900))
    measured = Measurement(name="", timings={"slow": slow, "fast": fast})
    assert measured.ratio("slow", "fast") == pytest.approx(3)


def test_variants_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    seconds = iter(range(1, 17))
    monkeypatch.setattr(timing, "timed", lambda work: (next(seconds), work()))

    def work(name: str) -> Callable[[], np.ndarray]:
        return lambda: (turns.append(name), np.zeros(1))[1]

    timings, results = take_turns({"a": work("a"), "b": work("b")}, 8)
    assert turns[:2] == ["a", "b"]
    rounds = [turns[at : at + 2] for at in range(2, 2 + 2 * 8, 2)]
    assert all(sorted(one) == ["a", "b"] for one in rounds)
    assert ["a", "b"] in rounds
    assert ["b", "a"] in rounds
    assert {timings["a"].most, timings["b"].most} >= {16000}
    assert results.keys() == {"a", "b"}
