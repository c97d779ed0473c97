"""docs/scale.md is true: each of its commands runs, on a cluster of its own commands where it names one."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime import Projection
from tests.runtime.apps.survey.conftest import archive

REPOSITORY = Path(__file__).resolve().parents[4]
PAGE = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def place(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder with what the page names."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build/ccnet").symlink_to(folder, target_is_directory=True)
    archive(tmp_path / "flights/first", 3)
    for path in (tmp_path / "flights/first").iterdir():
        path.rename(path.with_suffix(".png.npy"))
    (tmp_path / "list.csv").write_text("path\nflights/first/0001.png.npy\n")
    np.save(tmp_path / "classifier.npy", np.random.default_rng(0).random((4, 31), np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def background() -> Iterator[Callable[[list[str]], None]]:
    """background(words): start a program that is killed when the test ends."""
    started: list[subprocess.Popen[bytes]] = []
    yield lambda words: started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for process in started:
        process.kill()
        process.wait()


def test_commands_of_the_page_run(place: Path, ccnet: Any, background: Callable[[list[str]], None]) -> None:
    pytest.importorskip("distributed", reason='distributed is not installed: pip install ".[scale]"')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for line in commands():
        words = shlex.split(line.removesuffix("&").replace(":8786", f":{port}").replace("0*.png", "0*.npy"))
        if words[0] == "dask":
            background([sys.executable, "-m", "dask", *words[1:], "--no-dashboard"])
            continue
        result = ccnet(*words[1:])
        assert result.code == 0, result.err
        out = words[words.index("--out") + 1]
        frames = 1 if "list.csv" in words else 3
        assert result.out == f"{out}: {frames} frames: {frames} done, 0 there already, 0 failed\n"
    assert len(list(place.glob("cubes/first/*.hdr"))) == 3
    assert np.load(place / "map/flights/first/0001.png.npy.npy").shape == (4, 16, 16)
    assert np.load(place / "bands/first/0002.png.npy.npy").shape == (3, 16, 16)
    assert len(list(place.glob("more/first/*.npy"))) == 3


def test_failures_are_listed_and_set_the_exit_code(place: Path, ccnet: Any) -> None:
    (place / "flights/first/torn.jpg").write_bytes(b"\xff\xd8\xff")
    result = ccnet("survey", "flights", "--out", "ndre", "--index", "ndre=700,670")
    assert result.code == 1
    assert re.search(r"^failed: first/torn.jpg: .*torn\.jpg: damaged", result.err, re.MULTILINE)
    assert "0 of 4 frames, 0 failed" in result.err
    assert result.out == "ndre: 4 frames: 3 done, 0 there already, 1 failed\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--index", "ndre"], ["--index is 'ndre'", "NAME=A,B"]),
        (["--band", "450", "--index", "a=700,670"], ["more than one of --band"]),
        (["--band", "455"], ["no band at 455 nm"]),
    ],
)
def test_wrong_options_are_one_line(place: Path, ccnet: Any, options: list[str], words: list[str]) -> None:
    result = ccnet("survey", "flights", "--out", "x", *options)
    assert result.code == 2 and result.err.count("\n") == 1
    assert all(word in result.err for word in words)


def test_arithmetic_of_the_page() -> None:
    """The estimates follow from the figures that they name."""
    pixels, frames, bands = 100_000 * 20e6, 100_000, len(Projection.bands(*range(400, 701, 10)).names)
    seconds = pixels / (10e6 * 8)
    per_second = frames / seconds
    for text in (
        f"{seconds:,.0f} s, {seconds / 3600:.1f} hours",
        f"at R = 1 and n = 8: {10 * seconds / 3600:.0f} hours",
        f"{per_second:.0f} frames/s, {per_second * 10:.0f} MB/s",
        f"{4 * 20e6 / 1e6:.0f} MB a frame, {4 * pixels / 1e12:.1f} TB",
        f"{4 * 20 * per_second:.0f} MB/s at 4 frames/s",
        f"{4 * bands * 20e6 / 1e9:.2f} GB a frame, {4 * bands * pixels / 1e12:.0f} TB",
        f"{4 * bands * 20e6 * per_second / 1e9:.1f} GB/s at 4 frames/s",
    ):
        assert text in PAGE
