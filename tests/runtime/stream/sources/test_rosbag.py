"""Bags of ROS 2 as a source: topics, stamps, damaged messages, and bags that are cut."""

from __future__ import annotations

import io
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.parse import parse_source
from ccnet.runtime.stream.sources.rosbag import RosBag
from ccnet.runtime.stream.sources.source import SourceOptions
from tests.runtime.stream.ros.bags import COMPRESSED, IMAGE, TEXT, TYPES, compressed, image, write_bag

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8)


def images(**changes: Any) -> tuple[str, list[Any]]:
    return IMAGE, [image(number, pixels, **changes) for number, pixels in enumerate(FRAMES)]


def opened(text: object, **options: Any) -> Any:
    return closing(parse_source(str(text), **options).open())


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("of_file", [False, True], ids=["folder", "file"])
def test_only_image_topic_is_read_with_its_stamps(tmp_path: Path, storage: StoragePlugin, of_file: bool) -> None:
    texts = TEXT, [TYPES.types[TEXT](data="one")] * 5
    path = write_bag(tmp_path / "drive", {"/chatter": texts, "/camera/image_raw": images()}, storage)
    with opened(next(path.glob("drive.*")) if of_file else path) as source:
        assert source.expected == 3 and source.colour == "sRGB (assumed)"
        for number, pixels in enumerate(FRAMES):
            name, found = source.read()
            assert name == "" and found.dtype == np.uint8
            np.testing.assert_array_equal(found, pixels)
            seconds = 20 + number  # 1,700,000,000 s since 1970
            expected = {"captured": f"2023-11-14T22:13:{seconds}.000000007+00:00", "coordinate frame": "left_optical"}
            assert source.frame_metadata == expected
        assert source.read() is None and source.read() is None


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compression", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path: Path, storage: StoragePlugin, compression: CompressionMode) -> None:
    path = write_bag(tmp_path / "drive", {"/camera": images()}, storage, compression)
    with opened(path) as source:
        for pixels in FRAMES:
            np.testing.assert_array_equal(source.read()[1], pixels)
        assert source.read() is None


def test_topic_is_chosen_or_asked_for_in_one_line(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", {"/left": images(), "/right": images(encoding="bgr8")})
    with pytest.raises(CCNetError) as caught:
        parse_source(str(path)).open()
    assert (
        str(caught.value)
        == f"{path}: has 2 topics with images, choose one with rosbag:{path}?topic=NAME of /left, /right"
    )
    with pytest.raises(CCNetError, match="has no images on /middle, choose one with rosbag:"):
        parse_source(f"rosbag:{path}?topic=/middle").open()
    with opened(f"rosbag:{path}?topic=/right") as source:
        np.testing.assert_array_equal(source.read()[1], FRAMES[0][..., ::-1])


def test_bag_without_images_is_refused(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", {"/chatter": (TEXT, [TYPES.types[TEXT](data="one")])})
    with pytest.raises(CCNetError, match="has no topic with images"):
        parse_source(f"rosbag:{path}").open()


def test_time_in_the_bag_stands_for_a_missing_stamp(tmp_path: Path) -> None:
    types = TYPES.types
    empty = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id="")
    path = write_bag(tmp_path / "drive", {"/camera": images(header=empty)})
    with opened(path) as source:
        source.read()
        assert source.frame_metadata == {"captured": "2023-11-14T22:13:20.000000012+00:00"}


def test_sensor_frames_need_the_pattern_of_the_radiometry(tmp_path: Path) -> None:
    raw = (16 * FRAMES[0, ..., 0].astype(np.uint16)).astype(">u2")
    path = write_bag(tmp_path / "drive", {"/raw": (IMAGE, [image(0, raw, "bayer_grbg16", is_bigendian=1)])})
    with opened(path, bayer="GRBG", bits=12) as source:
        found = source.read()[1]
        np.testing.assert_array_equal(found, raw)
        assert found.dtype == np.uint16 and source.colour == ""
    for bayer, reason in ((None, 'and "bayer": "GRBG"'), ("RGGB", "expected the pattern RGGB")):
        with opened(path, bayer=bayer) as source, pytest.raises(CCNetError, match=reason):
            source.read()


def test_compressed_images_are_pictures(tmp_path: Path) -> None:
    data = []
    for pixels in (FRAMES[0], FRAMES[1, ..., 0]):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data.append(buffer.getvalue())
    colour, grey = data
    messages = [compressed(number, part) for number, part in enumerate([colour, colour[:99], grey, colour])]
    path = write_bag(tmp_path / "drive", {"/camera/image_raw/compressed": (COMPRESSED, messages)})
    with opened(path) as source:
        np.testing.assert_array_equal(source.read()[1], FRAMES[0])
        assert source.colour == "sRGB (assumed)"
        for reason in ("the message's picture: damaged", "the message's picture: mode L, expected RGB"):
            with pytest.raises(CCNetError, match=reason):
                source.read()
        np.testing.assert_array_equal(source.read()[1], FRAMES[0])
    with opened(path, as_stored=True) as source:
        assert source.read() is not None and source.colour == ""


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (b"\0\1\0\0torn", "/camera: damaged, missing, truncated"),
        (b"", "/camera: damaged"),
        (image(1, FRAMES[1], height=99), "the message has 2304 bytes"),
        (image(1, FRAMES[1], encoding="yuv422_yuy2"), "the encoding is 'yuv422_yuy2'"),
    ],
    ids=["noise", "empty", "cut", "encoding"],
)
def test_damaged_message_is_a_damaged_frame(tmp_path: Path, damaged: Any, reason: str) -> None:
    messages = [image(0, FRAMES[0]), damaged, image(2, FRAMES[2])]
    with opened(write_bag(tmp_path / "drive", {"/camera": (IMAGE, messages)})) as source:
        assert source.expected == 3 and source.read() is not None
        with pytest.raises(CCNetError, match=reason) as caught:
            source.read()
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(source.read()[1], FRAMES[2])
        assert source.read() is None


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "time_ns"),
    [(-5, 0, 0), (2**31 - 1, 10**9, 0), (0, 0, 2**63 + 5), (0, 0, 2**31 * 10**9)],
    ids=["negative", "nanoseconds", "time_of_the_bag", "2038"],
)
def test_time_out_of_range_is_a_damaged_frame(tmp_path: Path, seconds: int, nanoseconds: int, time_ns: int) -> None:
    damaged = image(1, FRAMES[1])
    damaged.header.stamp.sec, damaged.header.stamp.nanosec = seconds, nanoseconds
    times = (5, time_ns or 6, time_ns + 7)
    with Writer(tmp_path / "drive", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/camera", IMAGE, typestore=TYPES)
        for time, message in zip(times, (image(0, FRAMES[0]), damaged, image(2, FRAMES[2])), strict=True):
            writer.write(camera, time, TYPES.serialize_cdr(message, IMAGE))
    with opened(tmp_path / "drive") as source:
        source.read()
        with pytest.raises(CCNetError, match="ns since 1970, expected 0 to 2147483647999999999") as caught:
            source.read()
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(source.read()[1], FRAMES[2])


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_bag_that_is_cut_anywhere_is_one_line(tmp_path: Path, storage: StoragePlugin) -> None:
    """At opening, or as a damaged frame after which the frames end; never another exception, never a wrong pixel."""
    whole = write_bag(tmp_path / "drive", {"/camera": images()}, storage)
    file = next(whole.glob("drive.*"))
    for path in (file, whole):
        data = file.read_bytes()
        for size in range(0, len(data), len(data) // 23):
            cut = tmp_path / "cut"
            shutil.copytree(whole, cut)
            (cut / file.name).write_bytes(data[:size])
            _read_until_damage(cut / file.name if path == file else cut)
            shutil.rmtree(cut)


def _read_until_damage(path: Path) -> None:
    with pytest.raises(CCNetError) as caught, opened(path) as source:
        for pixels in FRAMES:
            np.testing.assert_array_equal(source.read()[1], pixels)
    assert "\n" not in str(caught.value) and "expected a whole ROS 2 bag" in str(caught.value)


def test_damaged_chunk_ends_the_frames_with_a_reason(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "drive", {"/camera": images()})
    file = path / "drive.mcap"
    data = bytearray(file.read_bytes())
    start = data.index(b"left_optical")
    data[start - 60 : start] = b"\xff" * 60  # the sizes of the first message
    file.write_bytes(data)
    with opened(path) as source:
        with pytest.raises(CCNetError, match="expected a whole ROS 2 bag"):
            source.read()
        assert source.read() is None and source.expected == 3  # the stream exits with 1: too few frames


@pytest.mark.parametrize("name", ["missing", "missing.mcap"])
def test_missing_bag_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(CCNetError, match="No such file") as caught:
        parse_source(f"rosbag:{tmp_path / name}").open()
    assert "\n" not in str(caught.value)


def test_file_that_is_no_bag_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.db3").write_bytes(b"SQLite format 3\0")
    (tmp_path / "b.mcap").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"text")
    for path in tmp_path.iterdir():
        with pytest.raises(CCNetError, match="expected a whole ROS 2 bag"):
            RosBag(path, None, SourceOptions())


def test_bag_of_ros_1_is_told_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(CCNetError, match="is a bag of ROS 1, expected ROS 2; rosbags-convert --src"):
        parse_source(str(tmp_path / "old.bag")).open()


def test_folder_of_pictures_with_a_metadata_file_stays_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("camera: left\n")
    Image.fromarray(FRAMES[0]).save(tmp_path / "one.png")
    with opened(tmp_path) as source:
        assert source.read()[0] == "one"
