"""Bags of cubes, read back by rosbags: values bit for bit, stamps, files, restarts, and disks that are full."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.stream.ros import bag_file, bag_sink
from ccnet.runtime.stream.ros.bag_file import BagFile
from ccnet.runtime.stream.ros.bag_sink import RosBagSink
from ccnet.runtime.stream.sinks import open_sink
from ccnet.runtime.viz.render import render

CUBES = np.random.default_rng(0).random((4, 31, 24, 40), np.float32)
STAMP_NS = 1_700_000_000_123_456_789
TYPES = get_typestore(Stores.ROS2_HUMBLE)


def put(sink: Any, number: int, metadata: Mapping[str, str] | None = None) -> None:
    """Write a cube in two strips, captured ``number`` seconds after the first."""
    captured = f"{np.datetime64(STAMP_NS + number * 10**9, 'ns')}+00:00"
    with sink.cube(None, 24, 40, metadata or {"frame id": str(number), "captured": captured, "weights": "w"}) as writer:
        writer.write(0, CUBES[number, :, :9])
        writer.write(9, CUBES[number, :, 9:])


def refuse(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return topic → times and messages of a bag."""
    found = defaultdict(list)
    with Reader(path) as reader:
        for connection, time, data in reader.messages(reader.connections):
            found[connection.topic].append((time, TYPES.deserialize_cdr(data, connection.msgtype)))
    return found


def values(message: Any, dtype: Any) -> np.ndarray:
    assert message.is_bigendian == 0 and message.step * message.height == message.data.size
    return message.data.view(dtype).reshape(message.height, message.width, -1)


def test_cubes_come_back_bit_for_bit(tmp_path: Path) -> None:
    sink = open_sink(f"rosbag:{tmp_path}/drive?topics=cube,preview,550")
    for number in range(3):
        put(sink, number)
    sink.close()
    found = read(tmp_path / "drive")
    assert set(found) == {"/ccnet/cube", "/ccnet/preview", "/ccnet/band_550", "/ccnet/wavelengths"}
    for number in range(3):
        stamp = STAMP_NS + number * 10**9
        for topic, encoding in (("cube", "32FC31"), ("preview", "rgb8"), ("band_550", "32FC1")):
            time, message = found[f"/ccnet/{topic}"][number]
            assert time == stamp == message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            assert (message.encoding, message.header.frame_id) == (encoding, "camera")
        cube = values(found["/ccnet/cube"][number][1], np.float32).transpose(2, 0, 1)
        np.testing.assert_array_equal(cube, CUBES[number])
        np.testing.assert_array_equal(values(found["/ccnet/preview"][number][1], np.uint8), render(CUBES[number]))
        band = values(found["/ccnet/band_550"][number][1], np.float32)[..., 0]
        np.testing.assert_array_equal(band, CUBES[number, BANDS_NM.index(550)])
    ((_, wavelengths),) = found["/ccnet/wavelengths"]
    assert wavelengths.data.tolist() == list(BANDS_NM) and wavelengths.layout.dim[0].label == "wavelength_nm"


def test_wavelengths_are_latched_and_the_bag_has_the_metadata(tmp_path: Path) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    put(sink, 0)
    sink.close()
    with Reader(tmp_path / "drive") as reader:
        (qos,) = next(c.ext.offered_qos_profiles for c in reader.connections if c.topic == "/ccnet/wavelengths")
        assert qos.durability == QosDurability.TRANSIENT_LOCAL and qos.depth == 1
        assert reader.storage.metadata.custom == {"weights": "w"}


def test_coordinate_frame_of_the_source_is_kept(tmp_path: Path) -> None:
    sink = RosBagSink(f"{tmp_path}/drive?topics=550")
    put(sink, 0, {"coordinate frame": "left_optical"})
    sink.close()
    ((time, message),) = read(tmp_path / "drive")["/ccnet/band_550"]
    assert (time, message.header.frame_id) == (0, "left_optical")


def test_bag_is_whole_after_each_file(tmp_path: Path) -> None:
    """Read a copy made in the middle of a stream, which is what a killed process leaves."""
    sink = RosBagSink(f"{tmp_path}/drive?topics=cube", file_bytes=2 * CUBES[0].nbytes)
    for number in range(4):
        put(sink, number)
        if number == 2:
            shutil.copytree(tmp_path / "drive", tmp_path / "killed")
    sink.close()
    assert len(read(tmp_path / "killed")["/ccnet/cube"]) == 2 and len(list((tmp_path / "killed").glob(".ccnet-*"))) == 1
    assert {path.name for path in (tmp_path / "drive").iterdir()} == {"drive_0.mcap", "drive_1.mcap", "metadata.yaml"}
    with Reader(tmp_path / "drive") as reader:
        assert reader.message_count == 6 and reader.duration == 3 * 10**9 + 1 and reader.start_time == STAMP_NS
        assert {c.topic: c.msgcount for c in reader.connections} == {"/ccnet/cube": 4, "/ccnet/wavelengths": 2}
    cubes = [values(message, np.float32) for _, message in read(tmp_path / "drive")["/ccnet/cube"]]
    np.testing.assert_array_equal(np.stack(cubes).transpose(0, 3, 1, 2), CUBES)


def test_bag_that_exists_is_refused(tmp_path: Path) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    put(sink, 0)
    sink.close()
    with pytest.raises(CCNetError) as caught:
        RosBagSink(f"{tmp_path}/drive")
    assert str(caught.value) == f"rosbag:{tmp_path}/drive: exists and is kept, expected a new name for a bag"


def test_stream_without_cubes_leaves_nothing(tmp_path: Path) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    with pytest.raises(RuntimeError), sink.cube(None, 24, 40, {}):
        raise RuntimeError("reconstruction failed")
    sink.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("topics", ["cub", "cube,555", "710", "cube,,550", "-1"])
def test_unknown_topics_are_refused(tmp_path: Path, topics: str) -> None:
    with pytest.raises(CCNetError, match="expected cube, preview and wavelengths from 400 to 700 nm"):
        RosBagSink(f"{tmp_path}/drive?topics={topics}")
    assert not list(tmp_path.iterdir())


def test_cube_larger_than_a_message_is_refused(tmp_path: Path) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    with pytest.raises(CCNetError, match="more than a message's 4 GB"), sink.cube(None, 8000, 8000, {}):
        pass
    sink.close()


def test_full_disk_is_noticed_before_a_cube_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    put(sink, 0)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**5))
        with pytest.raises(CCNetError, match="0 MB are free"):
            put(sink, 1)
    put(sink, 2)
    sink.close()
    assert len(read(tmp_path / "drive")["/ccnet/cube"]) == 2


def test_lost_cubes_are_counted_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses the second file: the cube in work is rejected, two before it are lost, and the first stays."""
    sink = RosBagSink(f"{tmp_path}/drive")
    for number in range(3):
        put(sink, number)
        if number == 0:
            sink._publish()
    monkeypatch.setattr(BagFile, "write", refuse)
    with pytest.raises(CCNetError, match="No space left on device"):
        put(sink, 3)
    with pytest.raises(CCNetError, match="2 delivered cubes are lost"):
        sink.close()
    assert len(read(tmp_path / "drive")["/ccnet/cube"]) == 1
    assert not list((tmp_path / "drive").glob(".ccnet-*"))


def test_file_that_cannot_be_completed_is_an_error_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = RosBagSink(f"{tmp_path}/drive")
    put(sink, 0)
    monkeypatch.setattr(BagFile, "publish", refuse)
    with pytest.raises(CCNetError, match="1 delivered cubes are lost, as their file could not be written"):
        sink.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "captured", ["2040-01-01T00:00:00+00:00", "1969-12-31T23:59:59.5", "2600-01-01", "NaT", "yesterday"]
)
def test_time_without_a_stamp_costs_its_frame_alone(tmp_path: Path, captured: str) -> None:
    sink = RosBagSink(f"{tmp_path}/drive?topics=550")
    put(sink, 0)
    with pytest.raises(CCNetError, match="expected 1970 to January 2038") as caught:
        put(sink, 1, {"captured": captured})
    assert "\n" not in str(caught.value)
    put(sink, 2, {"captured": "2038-01-19T03:14:07.999999999+00:00"})
    sink.close()
    assert [time for time, _ in read(tmp_path / "drive")["/ccnet/band_550"]] == [STAMP_NS, 2**31 * 10**9 - 1]


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_message_that_cannot_be_built_costs_its_frame_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The message of the second topic fails: nothing of the first topic's is in the bag, even of the first frame."""
    sink = RosBagSink(f"{tmp_path}/drive?topics=preview,cube")
    serialized = bag_file._serialized

    def fail(types: Any, type: str, **fields: Any) -> memoryview:
        if fields.get("encoding") == "32FC31":
            raise error
        return serialized(types, type, **fields)

    for number in (0, 1):
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(bag_file, "_serialized", fail)
            put(sink, number)
        put(sink, number)
    sink.close()
    assert {topic: len(found) for topic, found in read(tmp_path / "drive").items() if "wave" not in topic} == {
        "/ccnet/preview": 2,
        "/ccnet/cube": 2,
    }


def test_error_of_the_library_discards_the_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    sink = RosBagSink(f"{tmp_path}/drive?topics=550")
    put(sink, 0)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Writer, "write", fail)
        put(sink, 1)
    put(sink, 2)
    with pytest.raises(CCNetError, match="1 delivered cubes are lost"):
        sink.close()
    assert len(read(tmp_path / "drive")["/ccnet/band_550"]) == 1


@pytest.mark.parametrize("method", ["open", "add_connection"])
def test_file_that_cannot_be_created_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    create = Writer.open

    def fail(writer: Writer, *_: Any, **__: Any) -> None:
        if method == "open":
            create(writer)
        raise OSError(28, "No space left on device")

    sink = RosBagSink(f"{tmp_path}/drive")
    monkeypatch.setattr(Writer, method, fail)
    with pytest.raises(CCNetError, match="No space left on device"):
        put(sink, 0)
    assert not list((tmp_path / "drive").iterdir())
    sink.close()
    assert not list(tmp_path.iterdir())


def test_metadata_that_cannot_be_written_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last file is complete before the stream ends, so that close has none to complete."""
    sink = RosBagSink(f"{tmp_path}/drive?topics=cube", file_bytes=CUBES[0].nbytes)
    with monkeypatch.context() as patch:
        patch.setattr(bag_sink, "write_atomic", _refuse_metadata)
        put(sink, 0)
    assert not (tmp_path / "drive/metadata.yaml").exists()
    sink.close()
    assert len(read(tmp_path / "drive")["/ccnet/cube"]) == 1


def test_file_that_metadata_lack_is_an_error_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RosBagSink(f"{tmp_path}/drive?topics=cube", file_bytes=CUBES[0].nbytes)
    put(sink, 0)
    monkeypatch.setattr(bag_sink, "write_atomic", _refuse_metadata)
    put(sink, 1)
    with pytest.raises(CCNetError, match=r"drive: metadata\.yaml does not list all files .*No space left") as caught:
        sink.close()
    assert "\n" not in str(caught.value)
    assert len(read(tmp_path / "drive")["/ccnet/cube"]) == 1
    assert len(read(tmp_path / "drive/drive_1.mcap")["/ccnet/cube"]) == 1


def _refuse_metadata(path: Path, data: bytes) -> None:
    raise CCNetError(f"{path}: cannot be written (No space left on device)")


@pytest.mark.parametrize("option", ["?topic=550", "?", "?x?topics=550"])
def test_unknown_option_is_no_part_of_the_name(tmp_path: Path, option: str) -> None:
    with pytest.raises(CCNetError, match="unknown option after '\\?', expected rosbag:PATH\\?topics=LIST"):
        open_sink(f"rosbag:{tmp_path}/drive{option}")
    assert not list(tmp_path.iterdir())
