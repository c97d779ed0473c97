"""The real tritonserver: cubes equal the local ones, whatever clients, reloads and crashes do meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime import Projection, Reconstructor
from ccnet.runtime.apps.triton.client import SharedMemoryClient
from ccnet.runtime.apps.triton.load import measure
from ccnet.runtime.apps.triton.server import _backends
from tests.runtime.apps.triton.conftest import Server, page_commands
from tests.runtime.conftest import Array, pixels, refusal

CLIENTS = 64
LOADED = "successfully loaded 'ccnet'"


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Reconstructor]:
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        yield reconstruct


def test_folder_of_the_server_libraries_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "stub").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / f"cache/ccnet-triton-{os.getuid()}"
    folder.mkdir(parents=True, mode=0o777)
    assert _backends(tmp_path / "backend", tmp_path / "stub") == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    folder.rename(folder.with_name(f"ccnet-triton-{stranger}"))
    refusal(lambda: _backends(tmp_path / "backend", tmp_path / "stub"), "not yours", "XDG_CACHE_HOME")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder.symlink_to(tmp_path / "backend", target_is_directory=True)
    refusal(lambda: _backends(tmp_path / "backend", tmp_path / "stub"), "a link")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (48, 64), (131, 77)])
def test_cube_of_any_size_equals_the_local_one(server: Server, local: Reconstructor, height: int, width: int) -> None:
    frame = pixels(height, width)
    assert np.array_equal(server.infer(frame), local(frame))


def test_projection_and_ratio_equal_the_local_ones(server: Server, local: Reconstructor) -> None:
    frame = pixels(48, 64)
    index = Projection.differences({"red edge": (700, 670), "green": (550, 600)})
    assert index.denominator is not None
    matrices = {"projection": index.numerator, "denominator": index.denominator}
    assert np.array_equal(server.infer(frame, inputs=matrices), local.project(frame, index), equal_nan=True)
    bands = Projection.bands(450, 550)
    assert np.array_equal(server.infer(frame, inputs={"projection": bands.numerator}), local.project(frame, bands))


def test_sequence_keeps_its_own_context(server: Server, local: Reconstructor) -> None:
    """A frame of the same scene is decoded under the context of its sequence's first frame, not of another's."""
    first, other = pixels(48, 64), pixels(48, 64) // 4
    second = first.copy()
    second[:4, :4] = 0
    server.infer(first, sequence_id=5, sequence_start=True)
    server.infer(other, sequence_id=6, sequence_start=True)
    kept = local(second, local.encode(first))
    assert not np.array_equal(kept, local(second))
    assert np.array_equal(server.infer(second, sequence_id=5, sequence_end=True), kept)
    assert np.array_equal(server.infer(second, sequence_id=5), local(second))  # 5 has ended, so it begins again
    assert np.array_equal(server.infer(second, sequence_id=6, sequence_end=True), local(second))  # another scene


def test_64_clients_at_once_get_their_own_cubes(server: Server, local: Reconstructor) -> None:
    frames = [pixels(32, 48, seed=seed) for seed in range(CLIENTS)]
    barrier = threading.Barrier(CLIENTS)

    def ask(frame: Array) -> Array:
        client = server.client()
        barrier.wait(60)
        cube: Array = server.infer(frame, client)
        client.close()
        return cube

    with ThreadPoolExecutor(CLIENTS) as pool:
        cubes = list(pool.map(ask, frames))
    assert all(np.array_equal(cube, local(frame)) for cube, frame in zip(cubes, frames, strict=True))


def test_client_that_leaves_in_the_middle_harms_nobody(server: Server, local: Reconstructor) -> None:
    frame = pixels(200, 300)
    with socket.create_connection(("localhost", int(server.ports[0]))) as connection:
        connection.sendall(
            b"POST /v2/models/ccnet/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"{" * 1000
        )
    with pytest.raises(Exception, match="Deadline Exceeded"):
        server.infer(frame, client_timeout=0.001)
    assert np.array_equal(server.infer(frame), local(frame))


@pytest.mark.parametrize(
    ("frame", "inputs", "words"),
    [
        (np.zeros((8, 9, 4), np.uint8), {}, ["[8,9,4]", "[-1,-1,3]"]),
        (np.zeros((0, 9, 3), np.uint8), {}, ["shape (0, 9, 3)", "expected (H, W, 3)"]),
        (np.zeros((8, 9, 3), np.float32), {}, ["FP32", "UINT8"]),
        (np.zeros((8, 9, 3), np.uint8), {"image": np.zeros(9, np.uint8)}, ["both or none of frame and image"]),
        (np.zeros((8, 9, 3), np.uint8), {"projection": np.full((1, 31), np.nan, np.float32)}, ["NaN"]),
        (np.zeros((8, 9, 3), np.uint8), {"projection": np.zeros((1, 30), np.float32)}, ["[1,30]", "[-1,31]"]),
    ],
)
def test_wrong_request_is_one_line_and_the_server_goes_on(
    server: Server, local: Reconstructor, frame: Array, inputs: dict[str, Any], words: list[str]
) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException) as caught:
        server.infer(frame, inputs=inputs)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "\n" not in caught.value.message().strip()
    assert all(word in caught.value.message() for word in words)
    good = pixels(16, 16)
    assert np.array_equal(server.infer(good), local(good))


def test_reload_loses_no_request(server: Server, local: Reconstructor) -> None:
    frame, stop, wrong, served = pixels(32, 48), threading.Event(), [], [0, 0]
    expected = local(frame)

    def ask(number: int) -> None:
        client = server.client()
        while not stop.is_set():
            try:
                if not np.array_equal(server.infer(frame, client), expected):
                    wrong.append("another cube")
            except Exception as error:
                wrong.append(str(error))
            served[number] += 1
        client.close()

    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(ask, number) for number in range(2)]
        loads = server.log().count(LOADED)
        server.run(page_commands("ccnet serve export")[0])  # a model whose files did not change is not loaded again
        server.client().load_model("ccnet")
        assert server.log().count(LOADED) == loads + 1
        after = min(served)
        until = time.monotonic() + 30
        while min(served) < after + 3 and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        for asker in askers:
            asker.result()
    assert not wrong and min(served) >= after + 3


def test_shared_memory_client_gets_the_same_cube(server: Server, local: Reconstructor) -> None:
    frame = pixels(48, 64)
    with SharedMemoryClient(server.grpc, 48, 64) as serve:
        assert np.array_equal(serve(frame), local(frame))
        refusal(lambda: serve(pixels(48, 65)), "(48, 65, 3)", "(48, 64, 3)")


def test_cube_of_the_shared_memory_client_outlives_it(server: Server, local: Reconstructor) -> None:
    first, second = pixels(48, 64), pixels(48, 64, seed=1)
    with SharedMemoryClient(server.grpc, 48, 64) as serve:
        cube = serve(first)
        serve(second)
    assert cube.flags.owndata  # a view of the freed memory would end this process
    assert np.array_equal(cube, local(first))


def test_shared_memory_client_closes_while_its_frame_is_in_work(server: Server, local: Reconstructor) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException), SharedMemoryClient(server.grpc, 512, 512) as serve:
        serve(pixels(512, 512), client_timeout=0.01)
    assert not list(Path("/dev/shm").glob("ccnet-frame-*"))  # noqa: S108
    frame = pixels(16, 16)
    assert np.array_equal(server.infer(frame), local(frame))


def test_load_report_counts_every_frame(server: Server, folder: Path) -> None:
    report = measure(folder, server.grpc, side=64, frames=5, clients=2)
    assert report.largest_difference == 0
    assert [len(report.local_ms), len(report.served_ms), len(report.load_ms)] == [5, 5, 5]
    assert 0 < report.server_ms["compute infer"] < max(report.served_ms + report.load_ms)
    assert "5 frames in turns" in report.lines()[0] and "2 clients" in report.lines()[4]
    refusal(lambda: measure(folder, "localhost:9", side=64, frames=1, clients=1), "localhost:9", "ccnet serve run")


def test_load_report_compares_with_the_settings_of_the_server(server: Server, folder: Path) -> None:
    (export,) = page_commands("ccnet serve export")
    try:
        server.run(f"{export} --input-space camera --threads 1")
        server.client().load_model("ccnet")
        report = measure(folder, server.grpc, side=32, frames=1, clients=1)
    finally:
        server.run(export)
        server.client().load_model("ccnet")
    assert report.largest_difference == 0
    assert "both: input_space camera, backend auto, threads 1" in report.lines()[6]


def test_model_process_that_dies_comes_back_when_the_model_is_loaded_again(
    server: Server, local: Reconstructor
) -> None:
    from tritonclient.utils import InferenceServerException

    frame = pixels(32, 48)
    for process in children(server):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(InferenceServerException, match="Stub process"):
        server.infer(frame, client_timeout=10)
    control = server.client()
    control.unload_model("ccnet")
    until_ready(server, ready=False)
    control.load_model("ccnet")
    assert np.array_equal(server.infer(frame), local(frame))


def test_killed_server_starts_again_and_serves_the_same(server: Server, local: Reconstructor) -> None:
    frame = pixels(32, 48)
    orphans = children(server)
    server.stop(kill=True)
    server.start()
    assert np.array_equal(server.infer(frame), local(frame))
    until = time.monotonic() + 30
    while any(Path(f"/proc/{process}/cmdline").exists() for process in orphans) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{process}/cmdline").exists() for process in orphans)


def children(server: Server) -> list[int]:
    """Return the processes that run the model's copies."""
    assert server.process
    path = Path(f"/proc/{server.process.pid}/task")
    found = [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]
    assert found
    return found


def until_ready(server: Server, *, ready: bool) -> None:
    until, client = time.monotonic() + 30, server.client()
    while client.is_model_ready("ccnet") != ready:
        assert time.monotonic() < until
        time.sleep(0.05)
