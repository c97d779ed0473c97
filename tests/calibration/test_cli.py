"""``ccnet calibrate``: the reports of its commands, their files, and their refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.calibration.graph_runner import Array
from ccnet.calibration.int8 import search as int8
from ccnet.calibration.int8.search import Int8Search
from ccnet.contract import MANIFEST_NAME, Manifest
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor


@pytest.fixture
def folder(artifacts: tuple[CCNet, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts[1], tmp_path / "copy"))


def calibrate_ranges(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from ccnet.runtime.cli.main import main; main()"
    command = [sys.executable, "-c", script, "calibrate", "ranges", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_ranges_reports_modules_that_do_not_fit_and_writes_all_tensors(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranges.json"
    result = calibrate_ranges(artifacts[1], "--frames", photos, "--side", "32", "--json", out)
    assert (result.returncode, result.stderr.strip()) == (0, "")
    for words in (
        "paf.unit",
        "intra.norm",
        "eps lost",
        "ranges fit FP16 on 2 frames, ",
        "proved for any frame; largest activation",
    ):
        assert words in result.stdout
    report = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert {Path(path).name for path in report["frames"]} == {"astronaut.png", "coffee.jpg"}
    fitting, total = (int(word) for word in result.stdout.splitlines()[-1].split(" ranges")[0].split(" of "))
    assert total == len(report["ranges"])
    assert fitting == sum(tensor["verdict"] == "fits" for tensor in report["ranges"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no frames, expected at least one"),
        (["--frames", "nowhere.png"], "nowhere.png: no such file"),
        (["--frames", "empty"], "empty: holds no frame"),
        (["--frames", "photos", "--json", "nowhere/x.json"], "nowhere/x.json: cannot be written"),
    ],
)
def test_ranges_refuses_wrong_input_in_one_line(
    artifacts: tuple[CCNet, Path],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    result = calibrate_ranges(artifacts[1], "--side", "16", *arguments)
    assert result.returncode == 2
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_folder_without_artifacts_is_refused(photos: Path, tmp_path: Path) -> None:
    result = calibrate_ranges(tmp_path, "--frames", photos)
    assert result.returncode == 2 and "no manifest.json" in result.stderr


def test_bisect_reports_the_cause_and_writes_all_groups(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    out = tmp_path / "bisect.json"
    result = ccnet(
        "calibrate", "bisect", artifacts[1], "-f", photos, "--side", 16, "--groups", 6, "--max-frames", 1, "--json", out
    )
    assert result.code == 0, result.err
    assert "all in FP16, on 1 frame: MRAE" in result.out and "the cause: " in result.out
    report = json.loads(out.read_text())
    assert report["islands"] is True and len(report["groups"]) >= 4
    assert {group["name"] for group in report["named"]} <= {group["name"] for group in report["groups"]}


@pytest.mark.parametrize("command", ["bisect", "int8", "ranges"])
def test_damaged_graph_is_refused_in_one_line(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path, ccnet: Callable[..., Any], command: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(artifacts[1], folder)
    file = Manifest.read(folder).find("decode").file
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    (folder / file).write_bytes(data)
    result = ccnet("calibrate", command, folder, "-f", photos, "--side", 16)
    assert result.code == 2 and result.err.strip().count("\n") == 0 and file in result.err


def test_accepted_graph_is_written_and_runs(
    folder: Path, photos: Path, tmp_path: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "SHARES", (0.1,))
    monkeypatch.setattr(
        Int8Search, "rank", lambda self, scales: [layer for layer in self.layers if ".net." in layer.name]
    )
    arguments = ["calibrate", "int8", folder, "-f", photos, "--side", 16, "--observer", "min-max"]
    result = ccnet(*arguments, "--json", tmp_path / "int8.json", "--plot", tmp_path / "int8.png")
    assert result.code == 0, result.err
    assert "INT8 is accepted: " in result.out.splitlines()[-1]
    artifact = Manifest.read(folder).find("decode", precision="int8")
    artifact.read(folder)
    assert artifact.details["observer"] == "min-max" and artifact.details["budget"] == "kept"
    report = json.loads((tmp_path / "int8.json").read_text())
    assert report["file"]["broken"] == [] and report["held"] == 1
    assert (tmp_path / "int8.png").read_bytes().startswith(b"\x89PNG")
    frame = np.random.default_rng(0).random((32, 32, 3), np.float32)
    cubes = [reconstruct(folder, precision, frame) for precision in ("fp32", "int8")]
    assert np.abs(cubes[0] - cubes[1]).max() < 0.1


def reconstruct(folder: Path, precision: Any, frame: Array) -> Array:
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", precision=precision) as reconstructor:
        return reconstructor(frame)


def test_rejected_graph_is_written_only_with_keep(
    folder: Path, photos: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All convolutions in INT8 break the real budget."""
    monkeypatch.setattr(int8, "SHARES", (1.0,))
    monkeypatch.setattr(Int8Search, "rank", lambda self, scales: self.layers)  # all of them, so in any order
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = ["calibrate", "int8", folder, "-f", photos, "--side", 16, "--observer", "min-max"]
    result = ccnet(*arguments)
    assert result.code == 1 and "INT8 is rejected: mrae " in result.out.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    result = ccnet(*arguments, "--keep")
    assert result.code == 0 and "and is kept" in result.out.splitlines()[-1]
    assert Manifest.read(folder).find("decode", precision="int8").details["budget"] != "kept"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "photos/astronaut.png"], "1 frame, expected at least 2"),
        (["-f", "photos", "-f", "photos/coffee.jpg"], "expected different frames"),
        (["-f", "photos", "--plot", "photos/coffee.jpg/plot.png"], "photos/coffee.jpg: cannot be made"),
        (["-f", "photos", "--plot", "plot.jpg"], "plot.jpg: "),
        (["-f", "photos", "--json", "photos"], "photos: cannot be written"),
        (["-f", "photos", "--observer", "mean"], "mean"),
    ],
)
def test_int8_refuses_wrong_input_in_one_line_and_writes_nothing(
    folder: Path,
    photos: Path,
    ccnet: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    before = sorted(folder.iterdir())
    result = ccnet("calibrate", "int8", folder, "--side", "16", *arguments)
    assert result.code == 2 and words in result.err
    assert result.err.strip().count("\n") == 0
    assert sorted(folder.iterdir()) == before


def test_calibration_leaves_the_artifact_folder_unchanged(artifacts: tuple[CCNet, Path]) -> None:
    assert {path.name for path in artifacts[1].iterdir()} == {
        MANIFEST_NAME,
        *(artifact.file for artifact in Manifest.read(artifacts[1]).artifacts),
    }
