"""The benchmark harness: variants of the same work take turns, and their times are summarised.

Variants take turns in one run, in another order each round, so that whatever else the machine does meets all of them
alike. The first round, which pays for the first use of everything, does not count.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from ccnet.contract import cpu_name

Result = TypeVar("Result")

_PAUSE = 0.05  # s, in which the threads of the variant before come to rest


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Median, shortest and longest time of the repetitions, milliseconds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Return the summary of some durations in seconds."""
        return cls(median=1e3 * statistics.median(seconds), least=1e3 * min(seconds), most=1e3 * max(seconds))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The timings of one piece of work, by variant."""

    name: str
    timings: Mapping[str, Timing]

    def ratio(self, variant: str, baseline: str) -> float:
        """Return how many times as long as the baseline a variant takes, by the medians."""
        return self.timings[variant].median / self.timings[baseline].median


def take_turns(works: Mapping[str, Callable[[], Result]], repeats: int) -> tuple[dict[str, Timing], dict[str, Result]]:
    """Run all variants in turns.

    Args:
        works: Variant → the work as that variant does it.
        repeats: Rounds that count.

    Returns:
        The timing of each variant, and its result of the first round.
    """
    results = {variant: work() for variant, work in works.items()}
    durations: dict[str, list[float]] = {variant: [] for variant in works}
    order = np.random.default_rng(0)
    for _ in range(repeats):
        for variant in order.permutation([*works]).tolist():
            time.sleep(_PAUSE)
            durations[variant].append(timed(works[variant])[0])
    return {variant: Timing.of(seconds) for variant, seconds in durations.items()}, results


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the duration of a piece of work in seconds, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def machine() -> dict[str, Any]:
    """Return the facts about this machine that a report needs: CPU, cores, threads, torch, instruction set."""
    return {
        "cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
