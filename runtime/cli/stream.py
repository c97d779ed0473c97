"""``ccnet stream``: cubes from a camera, video, folder or pipe, until it is stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import CCNetError, Manifest
from ccnet.contract.signals import call_on_stop_signals
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.io.srgb import InputSpace
from ccnet.runtime.probe import open_probed
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.metrics import StatusLine
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.prometheus import PrometheusExporter
from ccnet.runtime.stream.queue import QueuePolicy
from ccnet.runtime.stream.sinks import open_sink
from ccnet.runtime.stream.sources import parse_source

from .options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    CubeFormatOption,
    DeviceOption,
    MemoryOption,
    OptionalInputSpaceOption,
    PrecisionOption,
    ThreadsOption,
    TileOption,
    to_bytes,
)

app = typer.Typer()


@app.command()
def stream(
    source: Annotated[
        str,
        typer.Argument(help="Camera number, /dev/video*, URL, video file, folder of pictures, or - for raw stdin."),
    ],
    sink: Annotated[list[str], typer.Option(help="Folder of cubes, group.zarr, or zmq:ADDRESS; may be repeated.")],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    tile: TileOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = 0,
    threads: ThreadsOption = None,
    input_space: OptionalInputSpaceOption = None,
    radiometry: Annotated[
        Path | None,
        typer.Option(help="JSON of the path from the sensor's numbers to linear light: bits, bayer, black, gains, …"),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size of the raw frames on stdin: WxH in px.")] = None,
    context: Annotated[
        str,
        typer.Option(help="Frames to compute a context from: every:N, scene (when it changes) or smooth (a mean)."),
    ] = "every:1",
    policy: Annotated[
        QueuePolicy | None,
        typer.Option(help="When frames come faster than cubes; if not given, latest for cameras and block for files."),
    ] = None,
    queue: Annotated[int, typer.Option(help="Largest number of waiting frames, for block and drop-oldest.")] = 4,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this number of frames.")] = None,
    format: CubeFormatOption = "hdr",
    metrics: Annotated[
        str | None, typer.Option(help="Metrics for Prometheus: a port to serve, or a .prom file to keep up to date.")
    ] = None,
) -> None:
    """Reconstruct cubes from a stream of RGB frames, with an account of every frame.

    Press Ctrl-C once to finish the frames that have arrived, twice to drop those that wait. At the end it prints how
    many frames were delivered, dropped by the policy and rejected, and why. The exit code is 1 if no frame has its
    cube, or if fewer frames came than the source says it has.
    """
    raw = Radiometry.read(radiometry) if radiometry else None
    input_space = _input_space(raw, input_space)
    spec = parse_source(
        source, size, bits=raw.bits if raw else 8, bayer=bool(raw and raw.bayer), as_stored=input_space == "camera"
    )
    with ExitStack() as stack:
        reconstructor = stack.enter_context(
            open_probed(
                artifacts,
                input_space=input_space,
                backend=backend,
                precision=precision,
                tile=tile,
                memory=to_bytes(memory),
                device=device,
                threads=threads,
            )
        )
        print(f"backend {reconstructor.describe()['chosen']}", flush=True)
        radiometry_metadata = _radiometry_metadata(raw, reconstructor.manifest)
        sinks = []
        for text in sink:
            sinks.append(open_sink(text, format))
            stack.callback(sinks[-1].close)
        pipeline = Stream(
            source=spec,
            sinks=sinks,
            reconstructor=reconstructor,
            prepare=raw or reconstructor.camera_frame,
            context=ContextPolicy(context),
            policy=policy or ("latest" if spec.live else "block"),
            queue_size=queue,
            max_frames=frames,
            metadata={**reconstructor.provenance(), "source": spec.name, "space": input_space, **radiometry_metadata},
        )
        _run(pipeline, metrics)
    _report(pipeline)


def _input_space(radiometry: Radiometry | None, asked: InputSpace | None) -> InputSpace:
    """Return the colour space of the frames that the radiometry, if there is any, makes."""
    if radiometry and asked == "srgb":
        raise CCNetError(
            "--radiometry gives linear camera values, --input-space srgb expects photographs: choose one of them"
        )
    return asked or ("camera" if radiometry else "srgb")


def _radiometry_metadata(radiometry: Radiometry | None, manifest: Manifest) -> dict[str, str]:
    """Return the metadata of the radiometry; CCNetError if the graphs cannot take the frames that it makes."""
    if radiometry is None:
        return {}
    if manifest.input == "uint8":
        raise CCNetError("these graphs take uint8 frames, --radiometry makes float32: export with --input float32")
    return radiometry.metadata()


def _run(pipeline: Stream, metrics: str | None) -> None:
    """Run a stream until it ends or is stopped by signals, with a status line and Prometheus' metrics."""
    with ExitStack() as stack:
        line = StatusLine(pipeline.metrics, sys.stderr)
        stack.callback(line.close)
        refresh = [line.refresh]
        if metrics is not None:
            exporter = PrometheusExporter(pipeline.metrics, metrics)
            stack.callback(exporter.close)
            refresh.append(exporter.refresh)
        stack.enter_context(call_on_stop_signals(pipeline.stop))
        pipeline.run(lambda: _call_all(refresh))


def _call_all(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()


def _report(pipeline: Stream) -> None:
    """Print the account of all frames; exit with 1 if the source gave too few, or none of them has its cube."""
    print(pipeline.metrics)
    for reason in pipeline.ledger.reasons:
        print(reason)
    counts, name = pipeline.ledger.counts(), pipeline.source.name
    too_few = pipeline.ended and counts.arrived < (pipeline.expected or 0)
    if too_few:
        print(f"{name}: {counts.arrived} frames came, expected {pipeline.expected} by its header; is it whole?")
    elif not counts.arrived:
        print(f"{name}: no frame came, expected at least one; check what feeds it")
    if too_few or not counts.delivered + counts.kept:
        raise typer.Exit(1)
