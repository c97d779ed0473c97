"""``ccnet stream``: cubes from a camera, video, folder or pipe, until it is stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract.signals import call_on_stop_signals
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.preparation import FramePreparation, prepared_space
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.probe import open_probed
from ccnet.runtime.quality.correction import CORRECTED, known_response
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.metrics import StatusLine
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.preparation import StreamPreparation
from ccnet.runtime.stream.prometheus import PrometheusExporter
from ccnet.runtime.stream.queue import QueuePolicy
from ccnet.runtime.stream.sinks import parse_sink
from ccnet.runtime.stream.sources.parse import parse_sources

from .options import (
    ARTIFACTS_FOLDER,
    ArtifactsOption,
    BackendOption,
    CorrectOption,
    CubeFormatOption,
    DeviceOption,
    ExposureOption,
    MemoryOption,
    OptionalInputSpaceOption,
    PrecisionOption,
    RadiometryOption,
    ThreadsOption,
    TileOption,
    WhiteOption,
    to_bytes,
)

if TYPE_CHECKING:
    from ccnet.runtime.apps.view.live import LivePreview

app = typer.Typer()


@app.command()
def stream(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Camera number, /dev/video*, genicam:PRODUCER.cti, aravis:ADDRESS, URL (rtsp://…), video file,"
            " ROS 2 bag, folder of pictures and raw files (DNG, CR2, NEF, ARW), several such files, or - for raw"
            " stdin.",
        ),
    ],
    sink: Annotated[
        list[str], typer.Option(help="Folder of cubes, group.zarr, rosbag:PATH, or zmq:ADDRESS; may be repeated.")
    ],
    artifacts: ArtifactsOption = ARTIFACTS_FOLDER,
    backend: BackendOption = "auto",
    precision: PrecisionOption = None,
    tile: TileOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = 0,
    threads: ThreadsOption = None,
    input_space: OptionalInputSpaceOption = None,
    radiometry: RadiometryOption = None,
    exposure: ExposureOption = None,
    white: WhiteOption = None,
    correct: CorrectOption = False,
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
    view: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of a local page that shows the last cube; 0: any.")
    ] = None,
) -> None:
    """Reconstruct cubes from a stream of RGB frames, with an account of every frame.

    Press Ctrl-C once to finish the frames that have arrived, twice to drop those that wait. At the end it prints how
    many frames were delivered, dropped by the policy and rejected, and why. The exit code is 1 if no frame has its
    cube, or if fewer frames came than the source says it has.
    """
    raw = Radiometry.find(radiometry) if radiometry else None
    adjustment = Adjustment.parse(exposure, white)
    input_space = prepared_space(raw, input_space)
    spec = parse_sources(
        source,
        size,
        bits=(raw and raw.bits) or 8,
        bayer=(raw and raw.bayer) or None,
        as_stored=input_space == "camera",
    )
    openers = [parse_sink(text, format) for text in sink]  # a misspelt one is refused before anything is opened
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
        base = FramePreparation(reconstructor.manifest, input_space, raw, adjustment, keep_gains=True)
        if correct and (spec.live or input_space == "camera"):  # the matrix of a raw file comes with the file
            known_response(base)
        print(f"backend {reconstructor.describe()['chosen']}", flush=True)
        prepare = StreamPreparation(
            base,
            {**reconstructor.provenance(), "source": spec.name} | (CORRECTED if correct else {}),
        )
        sinks = [stack.enter_context(closing(open_sink())) for open_sink in openers]
        pipeline = Stream(
            source=spec,
            sinks=sinks,
            preview=None if view is None else _open_preview(stack, view),
            reconstructor=reconstructor,
            prepare=prepare,
            context=ContextPolicy(context),
            policy=policy or ("latest" if spec.live else "block"),
            queue_size=queue,
            max_frames=frames,
            correction=prepare.correction if correct else None,
            metadata=prepare.metadata,
        )
        _run(pipeline, metrics)
        _report(pipeline)  # before the sinks close: a bag that cannot be completed is an error beside the account


def _open_preview(stack: ExitStack, port: int) -> LivePreview:
    """Start the page of a stream, and print its address; the stack stops it."""
    from ccnet.runtime.apps.view.live import LivePreview

    preview = LivePreview(port)
    stack.callback(preview.close)
    print(f"view {preview.url}", flush=True)
    return preview


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
