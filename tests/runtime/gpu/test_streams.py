"""Streams, events and graphs, on a driver double whose streams run late and in any order that is not forbidden."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Block, Device, DeviceMemory, Event, Graph, PinnedMemory, Stream, copy
from tests.runtime.gpu.driver_double import Driver, installed

SIZE = 64
each_seed = pytest.mark.parametrize("seed", range(12))


class Bench:
    """Two streams, an event, a block on the device and two on the host."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.device = driver, Device()
        self.streams = Stream(self.device), Stream(self.device)
        self.event = Event(self.device)
        self.source, self.target = (PinnedMemory(self.device, SIZE) for _ in range(2))
        self.memory = DeviceMemory(self.device, SIZE)
        self.values, self.result = (block.array((SIZE,), np.uint8) for block in (self.source, self.target))
        self.values[:] = np.arange(SIZE)

    def upload(self, stream: Stream) -> None:
        copy(stream, Block("device", self.memory.address, SIZE), Block("host", self.source.address, SIZE))

    def double(self, stream: Stream) -> None:
        def kernel() -> None:
            self.driver.view(self.memory.address, (SIZE,))[:] *= 2

        self.driver.enqueue(stream.handle, kernel, [self.memory.address])

    def download(self, stream: Stream) -> None:
        copy(stream, Block("host", self.target.address, SIZE), Block("device", self.memory.address, SIZE))

    def close(self) -> None:
        for thing in (*self.streams, self.event, self.source, self.target, self.memory):
            thing.close()


@each_seed
def test_stream_runs_its_work_in_order(seed: int) -> None:
    with installed(Driver(seed)) as driver:
        bench = Bench(driver)
        stream = bench.streams[0]
        with bench.device:
            bench.upload(stream)
            bench.double(stream)
            bench.download(stream)
            stream.synchronize()
        np.testing.assert_array_equal(bench.result, 2 * np.arange(SIZE))
        bench.close()


@each_seed
def test_event_orders_two_streams(seed: int) -> None:
    with installed(Driver(seed)) as driver:
        bench = Bench(driver)
        first, second = bench.streams
        with bench.device:
            bench.upload(first)
            bench.event.record(first)
            second.wait(bench.event)
            bench.double(second)
            bench.event.record(second)
            first.wait(bench.event)
            bench.download(first)
            bench.event.record(first)
            bench.event.synchronize()
        np.testing.assert_array_equal(bench.result, 2 * np.arange(SIZE))
        bench.close()


@pytest.mark.usefixtures("driver")
def test_event_that_was_never_recorded_is_done() -> None:
    device = Device()
    stream, event = Stream(device), Event(device)
    with device:
        stream.wait(event)
        event.synchronize()
        stream.synchronize()
    event.close()
    stream.close()


@pytest.mark.usefixtures("driver")
def test_close_is_harmless_when_repeated_and_needs_no_context() -> None:
    device = Device()
    for thing in (Stream(device), Event(device)):
        thing.close()
        thing.close()


def capture(bench: Bench) -> Graph:
    """Capture an upload and a download on the first stream, with a kernel on the second between them."""
    first, second = bench.streams
    first.begin_capture()
    bench.upload(first)
    bench.event.record(first)
    second.wait(bench.event)
    bench.double(second)
    back = Event(bench.device)
    back.record(second)
    first.wait(back)
    bench.download(first)
    graph = first.end_capture()
    back.close()
    return graph


@each_seed
def test_graph_replays_the_work_of_both_streams_with_new_values(seed: int) -> None:
    with installed(Driver(seed)) as driver:
        bench = Bench(driver)
        with bench.device:
            graph = capture(bench)
            driver.finish()
            assert (bench.result == 255).all(), "captured work does not run"
            for value in (1, 2, 3):
                bench.values[:] = value
                graph.launch(bench.streams[1])
                bench.streams[1].synchronize()
                assert (bench.result == 2 * value).all()
        graph.close()
        graph.close()
        bench.close()


def wait_for_the_stream(bench: Bench) -> None:
    bench.streams[0].synchronize()


def allocate(bench: Bench) -> None:
    DeviceMemory(bench.device, 1)


@pytest.mark.parametrize("forbidden", [wait_for_the_stream, allocate])
def test_what_a_graph_cannot_hold_is_refused(driver: Driver, forbidden: Callable[[Bench], None]) -> None:
    bench = Bench(driver)
    stream = bench.streams[0]
    with bench.device:
        stream.begin_capture()
        bench.upload(stream)
        with pytest.raises(CCNetError, match="STREAM_CAPTURE_UNSUPPORTED"):
            forbidden(bench)
        with pytest.raises(CCNetError, match="cuStreamEndCapture failed with CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
            stream.end_capture()
        bench.upload(stream)  # the stream works again
        stream.synchronize()
    bench.close()


def test_stream_that_does_not_come_back_cannot_be_captured(driver: Driver) -> None:
    bench = Bench(driver)
    first, second = bench.streams
    with bench.device:
        first.begin_capture()
        bench.event.record(first)
        second.wait(bench.event)
        bench.upload(second)
        with pytest.raises(CCNetError, match="STREAM_CAPTURE_UNJOINED"):
            first.end_capture()
    bench.close()


def test_capture_cannot_wait_for_work_from_before(driver: Driver) -> None:
    bench = Bench(driver)
    first, second = bench.streams
    with bench.device:
        bench.upload(second)
        bench.event.record(second)
        first.begin_capture()
        with pytest.raises(CCNetError, match="STREAM_CAPTURE_ISOLATION"):
            first.wait(bench.event)
        with pytest.raises(CCNetError, match="STREAM_CAPTURE_INVALIDATED"):
            first.end_capture()
        second.synchronize()
    bench.close()
