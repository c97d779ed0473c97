"""The steps of the day, each in a process and within a time of its own: one that fails or hangs loses only itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .rig import Device

BUDGET_S = 480.0
_LEAST_S = 5.0  # a step with less time than this would only start
_SLACK_S = 10.0  # steps start and end in some of the time, for which the last one is not skipped


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the day.

    Attributes:
        name: Name of its module.
        seconds: Its longest time.
        decides: What its figures decide.
    """

    name: str
    seconds: float
    decides: str


STEPS = (
    Step(name="copies", seconds=30, decides="whether kept parts are copied by 3-D copies, and what pinning is worth"),
    Step(name="resident", seconds=60, decides="whether the pipeline hides its copies, and the least host time a frame"),
    Step(name="tf32", seconds=40, decides="whether TF32 can be on anywhere within the table of tolerances"),
    Step(name="scans", seconds=130, decides="Triton's or CUDA's scan, its block sizes, the plugin, approximate tanh"),
    Step(name="inference", seconds=60, decides="what an engine must beat, and what CUDA graphs are worth"),
    Step(name="training", seconds=80, decides="the scan's kernel in training, and bfloat16"),
    Step(name="gpu_tests", seconds=80, decides="what may be claimed as tested on a GPU"),
)
"""Steps that decide a design come first."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a step.

    Attributes:
        step: The step.
        status: ``done``, or why not.
        seconds: Time that it took.
        rows: The figures that it emitted, also before it failed, as JSON objects.
    """

    step: Step
    status: str
    seconds: float
    rows: Sequence[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a JSON object."""
        named = {"step": self.step.name, "decides": self.step.decides, "status": self.status}
        return {**named, "seconds": round(self.seconds, 1), "rows": list(self.rows)}


Start = Callable[[Step, float], tuple[str, Sequence[dict[str, Any]]]]
"""Runs a step within some seconds; returns its status and rows."""


def run_day(
    steps: Sequence[Step],
    start: Start,
    keep: Callable[[Sequence[Outcome]], None],
    *,
    budget: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """Run the steps one after the other within a budget of time; skip those that may take more than is left.

    Args:
        steps: The steps, the most important first.
        start: Runs a step.
        keep: Called with all outcomes so far after each step.
        budget: Seconds for all of them.
        clock: Time in seconds.

    Returns:
        An outcome for each step; those that were skipped have no rows.
    """
    outcomes: list[Outcome] = []
    no_rows: Sequence[dict[str, Any]] = ()
    end = clock() + budget
    for step in steps:
        started = clock()
        left = max(end - started, 0)
        if left < max(_LEAST_S, step.seconds - _SLACK_S):
            status, rows = f"skipped: it may take {step.seconds:.0f} s, and {left:.0f} s were left", no_rows
        else:
            status, rows = start(step, min(step.seconds, left))
        outcomes.append(Outcome(step=step, status=status, seconds=clock() - started, rows=rows))
        keep(outcomes)
    return outcomes


def start_process(step: Step, limit: float, device: Device) -> tuple[str, Sequence[dict[str, Any]]]:
    """Run a step in a process of its own; it and all that it started end with the limit.

    Args:
        step: The step.
        limit: Seconds.
        device: The device to measure on.

    Returns:
        ``done``, or why it is not, and the rows that were emitted.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows, errors = Path(folder) / "rows", Path(folder) / "errors"
        command = [
            sys.executable,
            "-m",
            __package__ or "",
            "--step",
            step.name,
            "--device",
            device,
            "--rows",
            str(rows),
        ]
        with (
            errors.open("w") as log,
            subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            ) as child,
        ):
            try:
                code = child.wait(limit)
                status = "done" if code == 0 else f"failed: {_last_line(errors)}"
            except subprocess.TimeoutExpired:
                status = f"stopped after {limit:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []
    skipped = [row["skipped"] for row in found if "skipped" in row]
    return (f"skipped: {skipped[0]}" if skipped else status), [row for row in found if "skipped" not in row]


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it printed nothing"
