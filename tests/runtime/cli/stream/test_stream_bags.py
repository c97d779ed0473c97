"""``ccnet stream`` from ROS 2 bags and into them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from ccnet.runtime import Reconstructor, read_cube
from ccnet.runtime.stream.ros.bag_file import BagFile
from tests.runtime.stream.ros.bags import IMAGE, START_NS, TYPES, image, write_bag

DOCUMENT = Path(__file__).resolve().parents[4] / "docs/stream.md"
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8)


def test_cubes_of_a_bag_have_the_stamps_of_its_images(
    artifacts: Any, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    messages = [image(number, pixels) for number, pixels in enumerate(FRAMES)]
    messages.insert(1, image(7, FRAMES[0], height=4000))
    drive = write_bag(tmp_path / "drive", {"/camera/image_raw": (IMAGE, messages)})
    common = ("--artifacts", artifacts[1], "--input-space", "camera", "--sink")
    result = ccnet("stream", drive, *common, f"rosbag:{tmp_path}/cubes", "--sink", tmp_path / "files")
    assert result.code == 0 and result.err == ""
    assert "4 frames arrived: 3 delivered, 0 dropped by policy, 1 rejected (source 1)" in result.out
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct, Reader(tmp_path / "cubes") as reader:
        cubes = [connection for connection in reader.connections if connection.topic == "/ccnet/cube"]
        for number, (_, time, data) in enumerate(reader.messages(cubes)):
            message = TYPES.deserialize_cdr(data, IMAGE)
            found = message.data.view(np.float32).reshape(40, 48, 31).transpose(2, 0, 1)
            np.testing.assert_array_equal(found, reconstruct(FRAMES[number]))
            assert time == START_NS + number * 10**9 and message.header.stamp.nanosec == 7
            assert message.header.frame_id == "left_optical"
        custom = reader.storage.metadata.custom
        assert custom["source"] == str(drive) and custom["space"] == "camera"
    assert {path.stem for path in (tmp_path / "files").glob("*.hdr")} == {f"{number:08}" for number in range(3)}
    header = (tmp_path / "files/00000002.hdr").read_text()
    assert "ccnet captured = 2023-11-14T22:13:22.000000007+00:00" in header
    assert read_cube(tmp_path / "files/00000002.hdr").shape == (31, 40, 48)
    again = ccnet("stream", drive, *common, f"rosbag:{tmp_path}/cubes")
    assert again.code == 2 and again.err.endswith("cubes: exists and is kept, expected a new name for a bag\n")
    assert again.err.count("\n") == 1


def test_commands_of_the_documents_run(
    artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ccnet: Callable[..., Any]
) -> None:
    frames = IMAGE, [image(number, pixels) for number, pixels in enumerate(FRAMES)]
    write_bag(tmp_path / "drive", {"/camera/image_raw": frames})
    write_bag(tmp_path / "rig", {"/left/image_raw": frames, "/right/image_raw": frames})
    monkeypatch.chdir(tmp_path)
    section = DOCUMENT.read_text(encoding="utf-8").partition("## ROS 2 bags\n")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in section.splitlines() if line.startswith("ccnet ")]
    assert len(commands) == 2
    for command in commands:
        assert ccnet(*command[1:], "--artifacts", artifacts[1]).code == 0
    with Reader(tmp_path / "bands") as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts == {"/ccnet/preview": 3, "/ccnet/band_550": 3, "/ccnet/band_670": 3, "/ccnet/wavelengths": 1}


def test_cubes_that_a_full_disk_loses_are_an_error_beside_the_account(
    artifacts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ccnet: Callable[..., Any]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    drive = write_bag(tmp_path / "drive", {"/camera": (IMAGE, [image(n, pixels) for n, pixels in enumerate(FRAMES)])})
    monkeypatch.setattr(BagFile, "publish", refuse)
    result = ccnet("stream", drive, "--sink", f"rosbag:{tmp_path}/cubes", "--artifacts", artifacts[1])
    assert result.code == 2 and "3 frames arrived: 3 delivered" in result.out
    assert result.err.count("\n") == 1 and "cubes: 3 delivered cubes are lost, as their file could not" in result.err


def test_topics_and_cut_bags_are_told_in_one_line(artifacts: Any, tmp_path: Path, ccnet: Callable[..., Any]) -> None:
    frames = IMAGE, [image(number, pixels) for number, pixels in enumerate(FRAMES)]
    drive = write_bag(tmp_path / "drive", {"/left": frames, "/right": frames})
    arguments = ("--artifacts", artifacts[1], "--sink", tmp_path / "cubes")
    result = ccnet("stream", drive, *arguments)
    assert result.code == 2 and result.err.count("\n") == 1 and "?topic=NAME of /left, /right" in result.err
    assert ccnet("stream", f"rosbag:{drive}?topic=/left", *arguments, "--frames", "1").code == 0
    file = drive / "drive.mcap"
    file.write_bytes(file.read_bytes()[:-100])
    result = ccnet("stream", f"rosbag:{drive}?topic=/left", *arguments)
    assert result.code == 2 and result.err.count("\n") == 1 and "expected a whole ROS 2 bag" in result.err
