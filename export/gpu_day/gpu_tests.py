"""The tests that need a GPU: ``pytest -m gpu``."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ccnet

from .rig import Rig, Row, SkippedError

_REPOSITORY = Path(ccnet.__file__).resolve().parents[1]

_FOLDERS = ("ccnet/ops", "runtime", "export/engine", "export/gpu_day")


def run(rig: Rig) -> None:
    """Run the GPU tests of a checkout and emit how many of each folder passed, failed and were skipped.

    Args:
        rig: The device; without a GPU the tests are only collected.

    Raises:
        SkippedError: pytest or the tests are not here.
    """
    tests = _REPOSITORY / "tests"
    if find_spec("pytest") is None or not tests.is_dir():
        raise SkippedError("needs pytest and a checkout with its tests")
    for folder in rig.size(_FOLDERS, ("ccnet/ops/cuda",)):  # a run each: the time of the step may end in a later one
        _run_folder(rig, tests, folder)


def _run_folder(rig: Rig, tests: Path, folder: str) -> None:
    arguments = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-rfE", "--tb=line"]
    command = [sys.executable, "-m", "pytest", *arguments, *([] if rig.on_gpu else ["--collect-only"])]
    done = subprocess.run([*command, str(tests / folder)], cwd=_REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", lines[-1])}
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    for word in ("passed", "failed", "skipped"):
        note = "; ".join(failed)[:600] if word == "failed" else ""
        rig.emit(Row(name=f"GPU tests of {folder} {word}", value=counts.get(word, 0), unit="tests", note=note))
    rig.emit(Row(name=f"exit code of pytest, {folder}", value=done.returncode, unit="", target=0, note=lines[-1][:200]))
