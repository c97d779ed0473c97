"""Sinks: a cube is complete or absent, with its metadata."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zmq

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime import read_cube
from ccnet.runtime.stream.sinks import Sink, ZeroMQSocket, open_sink

CUBE = np.random.default_rng(0).random((31, 300, 150), np.float32)


def put(sink: Sink, name: str = "one", rows: tuple[int, ...] = (0, 70, 210, 300)) -> None:
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zmq:nowhere", "zmq:nowhere: cannot be bound"),
        ("zmq:ipc://\ud800", "cannot be bound"),
        ("\ud800", "cannot be made"),
        ("\0", "cannot be made"),
        ("cube.hdr", "is the name of one cube"),
        ("/proc/none/cubes", "/proc/none"),
        ("/proc/none/cubes.zarr", "/proc/none"),
    ],
)
def test_impossible_sinks_are_refused(text: str, words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        open_sink(text)


@pytest.mark.parametrize("text", ["zmq:tcp://*:5555", "cubes.zarr"])
def test_missing_library_is_named_with_its_extra(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ccnet.runtime.io import files

    monkeypatch.chdir(tmp_path)
    files.optional_module.cache_clear()
    for module in ("zmq", "zarr"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(CCNetError, match=r'pip install "ccnet-hsi\[camera\]"'):
        open_sink(text)
    assert not list(tmp_path.iterdir())
