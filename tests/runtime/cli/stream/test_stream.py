"""``ccnet stream``: folders, raw video, signals, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from ccnet.runtime import Reconstructor, read_cube
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.stream.sinks import open_sink


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{number}.png")
    return folder


def test_folder_of_pictures_is_streamed_to_cubes(
    artifacts: Any, pictures: Path, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    (pictures / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = (
        "stream",
        pictures,
        "--sink",
        tmp_path / "cubes",
        "--artifacts",
        artifacts[1],
        "--input-space",
        "camera",
    )
    result = ccnet(*arguments, "--metrics", tmp_path / "stream.prom")
    assert result.code == 0
    assert "4 frames arrived: 3 delivered, 0 dropped by policy, 1 rejected (source 1)" in result.out
    assert result.out.splitlines()[0].startswith("backend onnxruntime")
    assert "torn.png" in result.out and result.err == ""
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        for picture in pictures.glob("picture*.png"):
            cube = read_cube(tmp_path / "cubes" / f"{picture.stem}.hdr")
            np.testing.assert_array_equal(cube, reconstruct(np.asarray(Image.open(picture))))
    header = (tmp_path / "cubes/picture1.hdr").read_text()
    assert "ccnet frame id = 1" in header and "ccnet context = every:1" in header
    lines = (tmp_path / "stream.prom").read_text().splitlines()
    assert {"ccnet_frames_delivered_total 3.0", 'ccnet_frames_rejected_total{cause="source"} 1.0'} <= set(lines)
    again = ccnet(*arguments)
    assert again.code == 0 and "0 delivered, 3 there already, 0 dropped by policy, 1 rejected (source 1)" in again.out


def test_address_of_another_stream_is_refused_in_one_line(
    artifacts: Any, pictures: Path, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    sink = f"zmq:ipc://{tmp_path}/socket"
    first = open_sink(sink)
    result = ccnet("stream", pictures, "--sink", sink, "--artifacts", artifacts[1], "--input-space", "camera")
    first.close()
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"{sink}: another process sends from this address" in result.err


def test_misspelt_sink_is_refused_before_the_engines_open(
    artifacts: Any, pictures: Path, ccnet: Callable[..., Any]
) -> None:
    result = ccnet("stream", pictures, "--sink", "zqm:tcp://*:1", "--artifacts", artifacts[1])
    assert (result.code, result.out) == (2, "") and "unknown sink 'zqm'" in result.err


@pytest.mark.parametrize(("content", "frames"), [(b"", 0), (b"torn", 1)], ids=["an empty pipe", "less than a frame"])
def test_stream_that_yields_no_cube_fails(artifacts: Any, tmp_path: Path, content: bytes, frames: int) -> None:
    arguments = ("stream", "-", "--size", "32x32", "--sink", tmp_path / "new" / "cubes", "--artifacts", artifacts[1])
    process = run(*arguments, stdin=subprocess.PIPE)
    out, err = process.communicate(content, timeout=120)
    assert process.returncode == 1 and err == b""
    assert f"{frames} frames arrived: 0 delivered".encode() in out
    assert (b"no frame came" in out) == (frames == 0)
    assert not (tmp_path / "new").exists()


def test_stream_of_a_cut_video_fails(artifacts: Any, tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 32))
    for _ in range(8):
        writer.write(np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8))
    writer.release()
    arguments = ("--sink", tmp_path / "cubes", "--artifacts", artifacts[1])
    assert ccnet("stream", path, *arguments).code == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = ccnet("stream", path, *arguments)
    assert result.code == 1 and "expected 8 by its header" in result.out
    assert ccnet("stream", path, *arguments, "--frames", "2").code == 0  # as many as were asked for


def run(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from ccnet.runtime.cli.main import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def test_raw_bayer_frames_go_through_radiometry(artifacts: Any, tmp_path: Path) -> None:
    camera, cubes = tmp_path / "camera.json", tmp_path / "cubes"
    camera.write_text('{"bits": 12, "bayer": "RGGB", "black": [64, 64, 64]}')
    frames = np.random.default_rng(0).integers(64, 4096, (2, 32, 48)).astype("<u2")
    frames[1, 0, 0] = 4096  # a sample of 13 bits
    arguments = ("stream", "-", "--size", "48x32", "--radiometry", camera, "--sink", cubes, "--artifacts", artifacts[1])
    process = run(*arguments, stdin=subprocess.PIPE)
    out, _ = process.communicate(frames.tobytes(), timeout=120)
    assert process.returncode == 0 and b"1 delivered" in out and b"rejected (radiometry 1)" in out
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        expected = reconstruct(Radiometry.read(camera)(frames[0]))
    np.testing.assert_array_equal(read_cube(cubes / "00000000.hdr"), expected)
    assert "ccnet radiometry bayer = RGGB" in (cubes / "00000000.hdr").read_text()


def test_radiometry_and_srgb_exclude_each_other(tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    (tmp_path / "camera.json").write_text("{}")
    result = ccnet("stream", "0", "--sink", "x", "--input-space", "srgb", "--radiometry", tmp_path / "camera.json")
    assert result.code == 2 and "choose one" in result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_drains_the_stream(artifacts: Any, tmp_path: Path, number: int) -> None:
    cubes = tmp_path / "cubes"
    arguments = ("stream", "-", "--size", "32x32", "--sink", cubes, "--artifacts", artifacts[1], "--queue", "64")
    process = run(*arguments, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(5 * 32 * 32 * 3))
    process.stdin.flush()
    wait_for(lambda: len(list(cubes.glob("*.hdr"))) >= 1)
    process.send_signal(number)  # the pipe stays open: the capturing thread waits in it
    process.wait(120)
    out, err = _outputs(process)
    assert (process.returncode, err) == (0, b"")
    delivered = len(list(cubes.glob("*.hdr")))
    assert f"{delivered} frames arrived: {delivered} delivered, 0 dropped".encode() in out


def _outputs(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return standard output and error of an ended process, and close its pipes."""
    assert process.stdout is not None and process.stderr is not None and process.stdin is not None
    with process.stdout, process.stderr, process.stdin:
        return process.stdout.read(), process.stderr.read()


def test_cubes_of_a_killed_stream_are_complete(artifacts: Any, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    cubes, group = tmp_path / "cubes", tmp_path / "cubes.zarr"
    arguments = ("stream", "-", "--size", "96x96", "--sink", cubes, "--sink", group, "--artifacts", artifacts[1])
    process = run(*arguments, stdin=subprocess.PIPE)
    assert process.stdin is not None
    feeder = threading.Thread(target=_pour, args=(process.stdin.fileno(), bytes(40 * 96 * 96 * 3)))
    feeder.start()
    wait_for(lambda: len(list(cubes.glob("*.hdr"))) >= 3)
    process.kill()
    process.wait(60)
    feeder.join(60)
    _outputs(process)
    headers = sorted(cubes.glob("*.hdr"))
    for header in headers:
        assert np.isfinite(read_cube(header)).all()
    arrays = [array[:] for _, array in zarr.open_group(str(group), mode="r").arrays()]
    assert len(arrays) >= 2
    assert all(array.shape == (31, 96, 96) and np.isfinite(array).all() and array.any() for array in arrays)


def _pour(descriptor: int, data: bytes) -> None:
    with suppress(BrokenPipeError):  # the reader was killed
        os.write(descriptor, data)
