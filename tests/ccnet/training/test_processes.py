"""Training in processes of its own: killed in the middle, and shared among several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ccnet.data.camera import Array

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]
CCNET = str(Path(sys.executable).with_name("ccnet"))

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave, camera_file: Path) -> list[str]:
    for seed, name in enumerate(("train/a_ms", "train/b_ms", "val/c_ms")):
        write_cave(tmp_path / name, make_cube(16, 20, seed))
    return [
        "train", "--data", f"cave:{tmp_path}/train", "--val", f"cave:{tmp_path}/val", "--camera", str(camera_file),
        "--steps", "8", "--batch", "2", "--patch", "16", "--evaluate-every", "8", "--save-every", "1",
        "--config", "units=1", "--threads", "1", "--device", "cpu",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def weights(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / "last.safetensors", framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith("model.")}  # noqa: SIM118


def test_killed_run_resumes_to_the_same_weights(arguments: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([CCNET, *arguments, "--out", str(whole)], check=True, env=environment())
    process = subprocess.Popen([CCNET, *arguments, "--out", str(killed)], env=environment())
    while not (killed / "last.safetensors").exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run([CCNET, *arguments, "--out", str(killed)], check=True, env=environment())
    for name, tensor in weights(whole).items():
        np.testing.assert_array_equal(weights(killed)[name], tensor, err_msg=name)


def test_two_processes_train_the_same_weights_as_one(arguments: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Few steps: Adam turns rounding in a gradient near zero into a whole step
    short = [*arguments, "--steps", "2"]
    subprocess.run([CCNET, *short, "--out", str(one)], check=True, env=environment())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, CCNET, *short, "--out", str(two)], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("best.safetensors") == 1  # only the first process reports
    expected, found = weights(one), weights(two)
    moved = np.mean([np.abs(expected[name] - found[name]).mean() for name in expected])
    assert moved < 1e-6


def test_batch_that_is_no_multiple_of_the_processes_is_refused(arguments: list[str], tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, CCNET, *arguments, "--batch", "3", "--out", str(tmp_path / "odd")],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert "ccnet: batch is 3, expected a multiple of the 2 processes" in result.stderr
