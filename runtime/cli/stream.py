"""``ccnet stream``: from a camera, video, folder or pipe to cubes, until it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import CCNetError
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    CubeFormatOption,
    OptionalInputSpaceOption,
    PrecisionOption,
    TileOption,
)
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.probe import open_probed
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.metrics import Metrics, StatusLine
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.queue import Policy
from ccnet.runtime.stream.sinks import open_sink
from ccnet.runtime.stream.sources import parse_source

app = typer.Typer()


@app.command()
def stream(
    source: Annotated[
        str,
        typer.Argument(help="Camera number, /dev/video*, URL, video file, folder of pictures, or - for raw stdin."),
    ],
    sink: Annotated[
        list[str], typer.Option(help="Folder of cubes, group.zarr, or zmq:ADDRESS; may be given more than once.")
    ],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    window: TileOption = 512,
    space: OptionalInputSpaceOption = None,
    radiometry: Annotated[
        Path | None,
        typer.Option(help="JSON of the path from the sensor's numbers to linear light: bits, bayer, black, gains, …"),
    ] = None,
    size: Annotated[str | None, typer.Option(help="WxH in px of raw frames on stdin.")] = None,
    context: Annotated[
        str, typer.Option(help="Whose context a frame is decoded under: every:N, scene (when it changes) or smooth.")
    ] = "every:1",
    policy: Annotated[
        Policy | None,
        typer.Option(help="When frames come faster than cubes; if not given, latest for cameras and block for files."),
    ] = None,
    queue: Annotated[int, typer.Option(help="Most frames that wait, under block and drop-oldest.")] = 4,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    format: CubeFormatOption = "hdr",
    metrics: Annotated[
        str | None, typer.Option(help="For Prometheus: a port to answer on, or a .prom file to keep up to date.")
    ] = None,
) -> None:
    """A stream of RGB frames → cubes, each frame accounted for.

    Interrupt it once to finish what has arrived, twice to drop what waits. At the end it says how many frames were
    delivered, dropped by the policy and rejected, and why; it exits with 1 if frames came and none was delivered.
    """
    raw = Radiometry.read(radiometry) if radiometry else None
    if raw and space == "srgb":
        raise CCNetError("--radiometry gives linear camera values, --input-space srgb expects photographs: choose one")
    space = space or ("camera" if raw else "srgb")
    spec = parse_source(source, size, bits=raw.bits if raw else 8, bayer=bool(raw and raw.bayer))
    with ExitStack() as stack:
        reconstructor = stack.enter_context(
            open_probed(artifacts, input_space=space, backend=backend, precision=precision, tile=window)
        )
        if raw and reconstructor.manifest.input == "uint8":
            raise CCNetError("these graphs take uint8 frames, --radiometry makes float32: export with --input float32")
        about_raw = raw.metadata() if raw else {}
        sinks = []
        for text in sink:
            sinks.append(open_sink(text, format))
            stack.callback(sinks[-1].close)
        running = Stream(
            source=spec,
            sinks=sinks,
            reconstructor=reconstructor,
            prepare=raw or reconstructor.camera_frame,
            context=ContextPolicy(context),
            policy=policy or ("latest" if spec.live else "block"),
            queue=queue,
            most=frames,
            metadata={**reconstructor.provenance(), "source": spec.name, "space": space, **about_raw},
        )
        _run(running, metrics)
    tally = running.account.tally()
    print(running.pulse)
    for reason in running.account.reasons:
        print(reason)
    if tally.arrived and not tally.delivered:
        raise typer.Exit(1)


def _run(running: Stream, metrics: str | None) -> None:
    with ExitStack() as stack:
        line = StatusLine(running.pulse, sys.stderr)
        stack.callback(line.close)
        refresh = [line.refresh]
        if metrics is not None:
            prometheus = Metrics(running.pulse, metrics)
            stack.callback(prometheus.close)
            refresh.append(prometheus.refresh)
        stack.enter_context(_stopping(running.stop))
        running.run(lambda: _each(refresh))


def _each(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop`` in the block."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
