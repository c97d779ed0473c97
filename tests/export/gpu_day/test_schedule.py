"""The order, time boxes and processes of the day's steps, with a clock and steps that are not real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ccnet.export.gpu_day import report, schedule
from ccnet.export.gpu_day.schedule import STEPS, Outcome, Step, run_day
from ccnet.runtime.gpu.cuda import has_gpu

ROW = {"name": "copy", "value": 1.25, "unit": "µs", "target": 1.0, "note": "pinned | 3-D"}


class Clock:
    """A clock that stands still, but for what the steps take."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def steps(*seconds: float) -> list[Step]:
    return [Step(name=f"step{index}", seconds=each, decides="all") for index, each in enumerate(seconds)]


def day(boxes: Sequence[float], takes: Sequence[float], budget: float) -> tuple[list[Outcome], list[float], list[int]]:
    """Return the outcomes, the limits that the steps had, and how many outcomes were kept each time."""
    clock, kept = Clock(), []
    limits: list[float] = []

    def start(step: Step, limit: float) -> tuple[str, Sequence[dict[str, Any]]]:
        limits.append(limit)
        clock.now += min(limit, takes[int(step.name[-1])])
        return "done", [ROW]

    outcomes = run_day(steps(*boxes), start, lambda so_far: kept.append(len(so_far)), budget=budget, clock=clock)
    return outcomes, limits, kept


def test_steps_run_in_order_and_are_kept_after_each() -> None:
    outcomes, limits, kept = day([30, 60], takes=[10, 20], budget=480)
    assert [(outcome.step.name, outcome.status, outcome.seconds) for outcome in outcomes] == [
        ("step0", "done", 10),
        ("step1", "done", 20),
    ]
    assert (limits, kept) == ([30, 60], [1, 2])


def test_step_that_may_take_more_than_is_left_is_skipped_and_a_shorter_one_runs() -> None:
    outcomes, limits, kept = day([30, 60, 10, 60], takes=[30, 60, 10, 60], budget=50)
    assert limits == [30, 10]
    assert [outcome.status for outcome in outcomes] == [
        "done",
        "skipped: it may take 60 s, and 20 s were left",
        "done",
        "skipped: it may take 60 s, and 10 s were left",
    ]
    assert kept == [1, 2, 3, 4]


def test_last_step_of_the_day_is_not_skipped_for_the_seconds_between_steps() -> None:
    outcomes, limits, _ = day([30, 60], takes=[30, 60], budget=88)
    assert limits == [30, 58] and outcomes[-1].status == "done"


def test_boxes_fit_the_budget() -> None:
    assert sum(step.seconds for step in STEPS) <= schedule.BUDGET_S


def test_report_is_written_whole_and_its_table_has_every_figure(tmp_path: Path) -> None:
    first, second = steps(1, 1)
    outcomes = [
        Outcome(step=first, status="done", seconds=1, rows=[ROW]),
        Outcome(step=second, status="failed: no memory", seconds=2, rows=[]),
    ]
    report.write(tmp_path / "day.json", "cpu", outcomes)
    content = json.loads((tmp_path / "day.json").read_text())
    assert [step["status"] for step in content["steps"]] == ["done", "failed: no memory"]
    assert content["steps"][0]["rows"] == [ROW]
    table = (tmp_path / "day.md").read_text()
    assert "| step0 | copy | 1.25 µs | 1 µs | pinned / 3-D |" in table
    assert "| step1 | | | | failed: no memory |" in table
    assert table.startswith("Rehearsal on a CPU, no measurement; torch ")


FAKE = """
import sys, time
rows = open(sys.argv[sys.argv.index("--rows") + 1], "a")
rows.write('{"name": "first", "value": 1, "unit": "s", "target": null, "note": ""}\\n')
rows.flush()
"""


@pytest.mark.parametrize(
    ("then", "status"),
    [
        ("pass", "done"),
        ("raise ValueError('a typo')", "failed: ValueError: a typo"),
        ("time.sleep(60)", "stopped after 3 s"),
        ('print(\'{"skipped": "no driver"}\', file=rows)', "skipped: no driver"),
        ("import os; os.kill(os.getpid(), 9)", "failed: it printed nothing"),
    ],
    ids=["done", "fails", "hangs", "skips", "dies"],
)
@pytest.mark.skipif(sys.platform == "win32", reason="processes and their groups are those of POSIX")
def test_process_that_fails_or_hangs_loses_no_figure(
    then: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake_day.py").write_text(FAKE + then)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(schedule, "__package__", "fake_day")
    actual, found = schedule.start_process(steps(1)[0], 3 if "sleep" in then else 60, "cpu")
    assert (actual, len(found)) == (status, 1)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "ccnet.export.gpu_day"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "gpu-day: there is no NVIDIA GPU with a driver; '--device cpu' rehearses the steps with tiny sizes\n"
    )
