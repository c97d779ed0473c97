"""The day's outcomes as one JSON file, written after each step, and as a table for the documents."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ccnet import __version__
from ccnet.contract import write_atomic
from ccnet.runtime.gpu.cuda import gpus, has_gpu

from .rig import Device
from .schedule import Outcome


def machine(device: Device) -> dict[str, Any]:
    """Return what the figures depend on: GPU, versions, and whether this is a rehearsal."""
    return {
        "rehearsal": device == "cpu",
        "gpus": list(gpus()) if has_gpu() else [],
        "ccnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def write(path: Path, device: Device, outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes so far, whole or not at all: JSON at ``path``, and the table beside it as ``.md``."""
    content = {"machine": machine(device), "steps": [outcome.to_json() for outcome in outcomes]}
    write_atomic(path, (json.dumps(content, indent=1, allow_nan=False, default=str) + "\n").encode())
    write_atomic(path.with_suffix(".md"), table(content).encode())


def table(content: dict[str, Any]) -> str:
    """Return the outcomes in Markdown: a line about the machine, and a table with a row for each figure."""
    facts = content["machine"]
    title = "Rehearsal on a CPU, no measurement" if facts["rehearsal"] else ", ".join(facts["gpus"])
    lines = [
        f"{title}; torch {facts['torch']}, CUDA {facts['cuda']}, ccnet {facts['ccnet']}.",
        "",
        "| step | figure | value | to compare with | note |",
        "| --- | --- | --- | --- | --- |",
    ]
    for step in content["steps"]:
        if step["status"] != "done" or not step["rows"]:
            lines.append(f"| {step['step']} | | | | {_cell(step['status'])} |")
        lines += [_line(step["step"], row) for row in step["rows"]]
    return "\n".join(lines) + "\n"


def _line(step: str, row: dict[str, Any]) -> str:
    value, target = (_figure(row[key], row["unit"]) for key in ("value", "target"))
    return f"| {step} | {_cell(row['name'])} | {value} | {target} | {_cell(row['note'])} |"


def _figure(number: float | None, unit: str) -> str:
    return "" if number is None else f"{number:.4g} {unit}".strip()


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
