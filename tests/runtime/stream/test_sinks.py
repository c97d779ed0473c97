"""Sinks: a cube is complete or absent, with its metadata."""

from __future__ import annotations

import errno
import itertools
import json
import socket as unix
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zmq

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime import read_cube
from ccnet.runtime.stream.sinks import CubeExistsError, Sink, ZeroMQSocket, open_sink

CUBE = np.random.default_rng(0).random((31, 300, 150), np.float32)


def put(sink: Sink, name: str | None = "one", rows: tuple[int, ...] = (0, 70, 210, 300)) -> None:
    """Write the cube in strips whose edges differ from those of the chunks."""
    with sink.cube(name, *CUBE.shape[1:], {"frame id": "7"}) as writer:
        for top, bottom in itertools.pairwise(rows):
            writer.write(top, CUBE[:, top:bottom])


@pytest.mark.parametrize("format", ["hdr", "npy"])
def test_cubes_are_written_as_files_and_never_overwritten(tmp_path: Path, format: Any) -> None:
    sink = open_sink(str(tmp_path / "new" / "cubes"), format)
    put(sink)
    np.testing.assert_array_equal(read_cube(tmp_path / f"new/cubes/one.{format}"), CUBE)
    with pytest.raises(CCNetError, match="exists and is kept"):
        put(sink)


def test_zarr_group_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "cubes.zarr"
    for names in (["a", "b"], ["c"]):  # two runs
        sink = open_sink(str(path))
        for name in names:
            put(sink, name)
        sink.close()
    group = zarr.open_group(str(path), mode="r")
    assert sorted(name for name, _ in group.arrays()) == ["00000000", "00000001", "00000002"]
    array: Any = group["00000002"]
    assert array.chunks == (31, 128, 128)
    np.testing.assert_array_equal(array[:], CUBE)
    assert dict(array.attrs) == {"wavelength": list(BANDS_NM), "name": "c", "frame id": "7"}


def test_numbers_go_on_where_a_source_has_no_names(tmp_path: Path) -> None:
    for _ in range(2):  # the service starts again
        sink = open_sink(str(tmp_path / "cubes"))
        for _ in range(2):
            put(sink, None)
    assert sorted(path.stem for path in (tmp_path / "cubes").glob("*.hdr")) == [f"{number:08}" for number in range(4)]


@pytest.mark.parametrize("folder", ["cubes", "cubes.zarr"])
def test_two_streams_share_a_folder(tmp_path: Path, folder: str) -> None:
    """Both sinks are open before the first cube, so both start with the same number."""
    sinks = [open_sink(str(tmp_path / folder), "npy") for _ in range(2)]
    with ExitStack() as stack:
        writers = [stack.enter_context(sink.cube(None, 4, 4, {})) for sink in (*sinks, sinks[0])]
        for value, writer in enumerate(writers):
            writer.write(0, np.full((31, 4, 4), value, np.float32))
    if folder == "cubes":
        found = [float(np.load(path)[0, 0, 0]) for path in (tmp_path / folder).iterdir()]
    else:
        group = zarr.open_group(str(tmp_path / folder), mode="r")
        found = [float(array[0, 0, 0]) for _, array in group.arrays()]
    assert sorted(found) == [0, 1, 2]


@pytest.mark.parametrize("format", ["hdr", "npy", "mat"])
def test_name_that_another_process_takes_meanwhile_is_kept(tmp_path: Path, format: Any) -> None:
    first, second = (open_sink(str(tmp_path), format) for _ in range(2))
    with pytest.raises(CCNetError, match="another process"), first.cube("one", 300, 150, {}) as writer:
        put(second)
        writer.write(0, np.zeros((31, 300, 150), np.float32))
    np.testing.assert_array_equal(read_cube(tmp_path / f"one.{format}"), CUBE)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("there", ["one.img", "one.hdr"])
def test_file_of_another_with_a_cubes_name_is_kept_and_no_cube(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(CCNetError, match="exists without the rest of a cube") as caught:
        put(open_sink(str(tmp_path)))
    assert not isinstance(caught.value, CubeExistsError)
    assert (tmp_path / there).read_text() == "mine"


def test_disk_without_hard_links_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: Path, part: Path) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    put(open_sink(str(tmp_path)))
    with pytest.raises(CubeExistsError):
        put(open_sink(str(tmp_path)))
    np.testing.assert_array_equal(read_cube(tmp_path / "one.hdr"), CUBE)


@pytest.mark.parametrize("version", [2, 3])
def test_group_goes_on_in_its_own_zarr_format(tmp_path: Path, version: Any) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    put(open_sink(str(tmp_path / "a.zarr")))
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    (array,) = (array for _, array in group.arrays())
    assert array.metadata.zarr_format == version
    np.testing.assert_array_equal(array[:], CUBE)


@pytest.mark.parametrize("name", ["cubes", "cubes.zarr"])
def test_failed_cube_leaves_nothing(tmp_path: Path, name: str) -> None:
    sink = open_sink(str(tmp_path / name))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RuntimeError), sink.cube("one", 300, 150, {}) as writer:
        writer.write(0, CUBE[:, :70])
        raise RuntimeError
    assert sorted(tmp_path.rglob("*")) == before
    put(sink)


def test_path_that_is_not_a_zarr_group_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").write_text("a file")
    with pytest.raises(CCNetError, match=r"a\.zarr: cannot be written"):
        open_sink(str(tmp_path / "a.zarr"))
    zarr.open_array(str(tmp_path / "b.zarr"), mode="w", shape=(1,), dtype="f4")
    with pytest.raises(CCNetError, match=r"b\.zarr: cannot be written"):
        open_sink(str(tmp_path / "b.zarr"))


def test_consumer_pulls_cubes(tmp_path: Path) -> None:
    sink = open_sink(f"zmq:ipc://{tmp_path}/socket")
    feeder = threading.Thread(target=lambda: [put(sink, name) for name in ("a", "b", "c", "d")])
    feeder.start()
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.connect(f"ipc://{tmp_path}/socket")
        for name in ("a", "b", "c", "d"):
            head, values = socket.recv_multipart()
            header = json.loads(head)
            assert (header["name"], header["frame id"], header["wavelength"]) == (name, "7", list(BANDS_NM))
            np.testing.assert_array_equal(np.frombuffer(values, header["dtype"]).reshape(header["shape"]), CUBE)
    feeder.join(60)
    sink.close()


PRODUCER = """
import sys
import numpy as np
from ccnet.runtime.stream.sinks import ZeroMQSocket
sink = ZeroMQSocket(sys.argv[1])
for name in "abc":
    with sink.cube(name, 300, 150, {}) as writer:
        writer.write(0, np.ones((31, 300, 150), np.float32))
sink.close()
"""


def test_queued_cubes_reach_a_slow_consumer_after_the_stream_ends(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/socket"
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVTIMEO, 60_000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        with subprocess.Popen([sys.executable, "-c", PRODUCER, address]) as process:
            assert socket.poll(60_000)  # the first is here
            time.sleep(2)  # the producer has sent all cubes by now; it must wait for the consumer before it ends
            names = [json.loads(socket.recv_multipart()[0])["name"] for _ in range(3)]
            assert process.wait(60) == 0
    assert names == ["a", "b", "c"]


def test_cube_that_no_consumer_takes_is_an_error(tmp_path: Path) -> None:
    sink = ZeroMQSocket(f"ipc://{tmp_path}/socket", send_timeout_ms=10)
    with pytest.raises(CCNetError, match="no consumer took the cube"):
        put(sink)
    sink.close()


def test_second_stream_cannot_take_over_the_address_of_the_first(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/socket"
    first = ZeroMQSocket(address)
    with pytest.raises(CCNetError) as caught:
        ZeroMQSocket(address)
    assert str(caught.value).startswith(f"zmq:{address}: another process sends from this address")
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 60_000)
        socket.connect(address)
        put(first)
        assert json.loads(socket.recv_multipart()[0])["name"] == "one"
    first.close()
    ZeroMQSocket(address).close()


def test_file_of_a_socket_is_taken_over_only_if_nobody_listens(tmp_path: Path) -> None:
    left, busy, text = (tmp_path / name for name in ("left", "busy", "text"))
    with unix.socket(unix.AF_UNIX) as killed:
        killed.bind(str(left))
    ZeroMQSocket(f"ipc://{left}").close()
    text.write_text("mine")
    with pytest.raises(CCNetError, match="no socket and is kept"):
        ZeroMQSocket(f"ipc://{text}")
    assert text.read_text() == "mine"
    with unix.socket(unix.AF_UNIX) as listener:
        listener.bind(str(busy))
        listener.listen()
        with pytest.raises(CCNetError, match="another process"):
            ZeroMQSocket(f"ipc://{busy}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zmq:nowhere", "zmq:nowhere: cannot be bound"),
        ("zmq:ipc://\ud800", "cannot be bound"),
        ("\ud800", "cannot be made"),
        ("\0", "cannot be made"),
        ("cube.hdr", "is the name of one cube"),
        (
            "foo:bar",
            r"foo:bar: unknown sink 'foo', expected zmq:ADDRESS, rosbag:PATH, .*; write ./foo:bar for a folder",
        ),
        ("s3://bucket/cubes.zarr", "unknown sink 's3'"),
        ("/proc/none/cubes", "/proc/none"),
        ("/proc/none/cubes.zarr", "/proc/none"),
    ],
)
def test_impossible_sinks_are_refused(text: str, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        open_sink(text)


def test_folder_with_a_colon_in_its_name_is_no_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run:1").mkdir()
    for text in ("run:1", "run:1/left", "./rig:1", "2026-11-30T12:00", "C:cubes", str(tmp_path / "up:1")):
        put(open_sink(text))
        assert (Path(text) / "one.hdr").exists()


@pytest.mark.parametrize("text", ["zmq:tcp://*:5555", "cubes.zarr"])
def test_missing_library_is_named_with_its_extra(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ccnet.runtime.io import files

    monkeypatch.chdir(tmp_path)
    files.optional_module.cache_clear()
    for module in ("zmq", "zarr"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(CCNetError, match=r'pip install "\.\[camera\]"'):
        open_sink(text)
    assert not list(tmp_path.iterdir())
