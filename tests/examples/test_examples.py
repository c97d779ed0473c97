"""The examples run and print what their docstrings promise."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: object) -> tuple[str, str]:
    """Run an example and return its standard output and standard error."""
    command = [sys.executable, REPOSITORY / "examples" / name, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for level in (60, 120, 180):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def test_camera_example_prints_a_spectrum_per_frame(artifacts: Any, video: Path) -> None:
    out, _ = run("camera.py", video, artifacts[1])
    assert out.count("mean spectrum: [") == 3


def test_two_slots_example_prints_frames_in_order(artifacts: Any, video: Path) -> None:
    out, _ = run("two_slots.py", video, artifacts[1])
    assert [line.split(",")[0] for line in out.splitlines()] == [f"frame {n}: (31" for n in range(3)]


def test_survey_example_writes_indices_and_reports_a_damaged_picture(artifacts: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    _, complaints = run("survey.py", folder, tmp_path / "out", artifacts[1])
    assert complaints.count("\n") == 1 and "torn.jpg" in complaints
    rows = list(csv.DictReader((tmp_path / "out/survey.csv").open()))
    assert [row["picture"] for row in rows] == ["0.png", "1.png"]
    (folder / "0.jpg").write_bytes((folder / "0.png").read_bytes())  # now two pictures share a stem
    out, _ = run("survey.py", folder, tmp_path / "out", artifacts[1])
    assert "4 pictures: 2 done, 1 there already, 1 failed" in out
    again, _ = run("survey.py", folder, tmp_path / "out", artifacts[1])
    assert "4 pictures: 0 done, 3 there already, 1 failed" in again
    for row in rows:
        index = np.load(tmp_path / "out" / f"{row['picture'][0]}.npy")
        assert index.shape == (32, 48) and float(row["mean"]) == pytest.approx(np.nanmean(index), abs=1e-4)


def test_alarm_example_reports_red_frames(artifacts: Any, video: Path) -> None:
    out, _ = run("alarm.py", video, artifacts[1], -1)  # every frame exceeds this threshold
    assert re.findall(r"frame (\d): [\d.]+% of it is red", out) == ["0", "1", "2"]


def test_flicker_example_counts_encoded_contexts(artifacts: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (128, 140, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "frame.png"), pixels)
    out, _ = run("flicker.py", tmp_path / "frame.png", artifacts[1], 3)
    encoded = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[1:]}
    assert encoded["every:1"] == encoded["smooth"] == 3 and encoded["every:1000"] == 1


def test_frame_of_100_megapixels_takes_less_than_2_gb(artifacts: Any) -> None:
    """Reconstruct the first strip alone, which allocates all buffers that later strips use."""
    out, _ = run("large.py", "--megapixels", 100, "--width", 1024, "--strips", 1, "--artifacts", artifacts[1])
    last = re.fullmatch(r"100 Mpx: [\d.]+ s/Mpx, peak ([\d.]+) GB so far", out.splitlines()[-1])
    assert last and 0.3 < float(last[1]) < 2
