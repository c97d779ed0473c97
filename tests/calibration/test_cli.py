"""``ccnet calibrate ranges``: which frames it takes, which it refuses, what it prints and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ccnet.calibration.data import diverse, read_frames
from ccnet.contract import CCNetError
from ccnet.model import CCNet
from ccnet.runtime.io.frames import Frame


def flat(level: int, side: int = 32) -> Frame:
    return np.full((side, side, 3), level, np.uint8)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from ccnet.runtime.cli.main import main; main()"
    command = [sys.executable, "-c", script, "calibrate", "ranges", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_crops_are_central_and_on_the_grid(photos: Path) -> None:
    frames = read_frames([photos], side=480, multiple=16, most=9)
    assert {path.name: frame.shape for path, frame in frames.items()} == {
        "astronaut.png": (480, 480, 3),
        "coffee.jpg": (400, 480, 3),
    }
    np.testing.assert_array_equal(frames[photos / "astronaut.png"], skimage.data.astronaut()[16:496, 16:496])


@pytest.mark.parametrize("other", ["again.png", "again.bmp"])
def test_a_repeated_frame_is_refused(photos: Path, other: str) -> None:
    Image.fromarray(skimage.data.astronaut()).save(photos / other)
    with pytest.raises(CCNetError, match=r"astronaut\.png.*expected different frames"):
        read_frames([photos], side=64, multiple=16, most=9)


def test_the_same_file_twice_is_refused(photos: Path) -> None:
    with pytest.raises(CCNetError, match="expected different frames"):
        read_frames([photos, photos / "coffee.jpg"], side=64, multiple=16, most=9)


@pytest.mark.parametrize(("side", "most", "words"), [(24, 1, "side is 24"), (0, 1, "side is 0"), (64, 0, "at most 0")])
def test_sizes_are_checked(photos: Path, side: int, most: int, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        read_frames([photos], side=side, multiple=16, most=most)


def test_a_frame_smaller_than_the_networks_grid_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", flat(0, 20))
    with pytest.raises(CCNetError, match=r"small\.npy: 20×20 px, expected at least 32 px"):
        read_frames([tmp_path / "small.npy"], side=64, multiple=32, most=1)


def test_the_frames_taken_are_those_far_apart() -> None:
    frames = [flat(level) for level in (100, 101, 250, 102, 0)]
    assert diverse(frames, 3) == [0, 2, 4]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=8), st.integers(1, 9))
def test_a_choice_names_each_frame_once(levels: list[int], most: int) -> None:
    chosen = diverse([flat(level, 16) for level in levels], most)
    assert len(chosen) == len(set(chosen)) == min(most, len(levels))
    assert set(chosen) <= set(range(len(levels)))


def test_the_report_names_the_islands_and_the_json_all_tensors(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ranges.json"
    result = run(artifacts[1], "--frames", photos, "--side", "32", "--json", out)
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
    assert fitting == sum(one["verdict"] == "fits" for one in report["ranges"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no frames: give one"),
        (["--frames", "nowhere.png"], "nowhere.png: no such file"),
        (["--frames", "empty"], "empty: holds no frame"),
        (["--frames", "photos", "--json", "nowhere/x.json"], "nowhere/x.json: cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(
    artifacts: tuple[CCNet, Path],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    result = run(artifacts[1], "--side", "16", *arguments)
    assert result.returncode == 2
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_a_folder_without_artifacts_is_refused(photos: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "--frames", photos)
    assert result.returncode == 2 and "no manifest.json" in result.stderr
