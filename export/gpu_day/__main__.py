"""``python -m ccnet.export.gpu_day``: the whole day, or one step of it in the process that ``schedule`` started."""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .rig import Device, Rig, SkippedError
from .schedule import BUDGET_S, STEPS, Outcome, run_day, start_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for and return the exit code: 0 done, 1 a step failed, 2 there is no GPU."""
    parser = argparse.ArgumentParser(prog="gpu-day", description="Measure on a GPU what decides designs.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses with tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("gpu-day.json"), help="the figures; the table goes beside it")
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="time for all steps")
    parser.add_argument("--steps", default=",".join(step.name for step in STEPS), help="the steps to run")
    parser.add_argument("--step", choices=[step.name for step in STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        return run_step(options.step, options.device, options.rows)
    names = options.steps.split(",")
    if unknown := sorted(set(names) - {step.name for step in STEPS}):
        parser.error(f"steps are {', '.join(unknown)}, expected some of {', '.join(step.name for step in STEPS)}")
    if lack := missing(options.device):
        print(f"gpu-day: {lack}", file=sys.stderr)
        return 2
    return run_all(names, options.device, options.out, options.seconds)


def missing(device: Device) -> str:
    """Return in one line what a measurement on the device lacks; empty if nothing."""
    import torch

    from ccnet.runtime.gpu.cuda import has_gpu

    if device == "cpu":
        return ""
    if not has_gpu():
        return "there is no NVIDIA GPU with a driver; '--device cpu' rehearses the steps with tiny sizes"
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU: install torch for CUDA"


def run_all(names: Sequence[str], device: Device, out: Path, seconds: float) -> int:
    """Run steps one after the other, and write the report after each."""
    from . import report

    def keep(outcomes: Sequence[Outcome]) -> None:
        report.write(out, device, outcomes)
        latest = outcomes[-1]
        print(f"{latest.step.name}: {latest.status}, {len(latest.rows)} figures in {latest.seconds:.0f} s", flush=True)

    steps = [step for step in STEPS if step.name in names]
    outcomes = run_day(steps, functools.partial(start_process, device=device), keep, budget=seconds)
    print(out.with_suffix(".md").read_text(encoding="utf-8"))
    return 0 if all(outcome.status.startswith(("done", "skipped")) for outcome in outcomes) else 1


def run_step(name: str, device: Device, path: Path) -> int:
    """Run one step and append its rows to a file, each as a line of JSON."""
    with path.open("a", encoding="utf-8") as rows:

        def write(content: dict[str, Any]) -> None:
            rows.write(json.dumps(content) + "\n")
            rows.flush()

        step = importlib.import_module(f"{__package__}.{name}")
        try:
            step.run(Rig(device, lambda row: write(row.to_json())))
        except SkippedError as why:
            write({"skipped": str(why)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
