"""``ccnet calibrate ranges``, ``bisect``, ``int8`` and ``contexts``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.contract import ArtifactFolder, CCNetError, limit_cores, strict_json, write_atomic
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    ArtifactsArgument,
    InputSpaceOption,
    JsonFileOption,
    ThreadsOption,
)
from ccnet.runtime.io.srgb import InputSpace

if TYPE_CHECKING:
    from ccnet.calibration.int8.search import ProgressCallback
    from ccnet.runtime.io.frames import Frame

app = typer.Typer()
calibrate = typer.Typer(help="Measure on real frames which precision a network's tensors need, and its context.")
app.add_typer(calibrate, name="calibrate")

_WHOLE_FRAME = 1 << 20
"""A side that no frame reaches, px: frames are cropped to multiples of the grid and no further."""

CalibrationFramesOption = Annotated[
    list[Path] | None,
    typer.Option("--frames", "-f", help="Frame, or folder of frames, all different; may be repeated."),
]
SideOption = Annotated[int, typer.Option("--side", help="Longest side of the centre crops: px, a multiple of 16.")]
MaxFramesOption = Annotated[
    int,
    typer.Option("--max-frames", "--most", help="Most frames to run: those that differ most from each other."),
]


@calibrate.command()
def ranges(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: CalibrationFramesOption = None,
    input_space: InputSpaceOption = "srgb",
    graph: Annotated[Literal["decode", "encode"], typer.Option(help="The graph to measure.")] = "decode",
    side: SideOption = 128,
    max_frames: MaxFramesOption = 16,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
) -> None:
    """Report what FP16 cannot hold: the range of every tensor of a graph, with a verdict.

    Overflow: a tensor may exceed 65504. Underflow: a divisor, a norm's floor or the sum of squares in it falls below
    6.1e-5, FP16's smallest normal number. The bound of a tensor is proved for any frame where that is possible, and
    else 16 times the largest measured value. The exit code is 0 whatever does not fit.
    """
    from rich.console import Console

    from ccnet.calibration.fp16.ranges import measure
    from ccnet.calibration.tables import print_bounds, print_unfit

    limit_cores(threads)
    _check_writable(json_file)
    artifacts = ArtifactFolder.open(folder)
    crops = _read_crops(artifacts, frames, input_space, side, max_frames)
    with Console(stderr=True).status(f"ranges of {len(crops)} frames"):
        measured = measure(artifacts, list(crops.values()), graph)
    if json_file is not None:
        tensors = [asdict(tensor) | {"verdict": tensor.verdict} for tensor in measured]
        _write_json(json_file, crops, {"graph": graph, "ranges": tensors})
    print_unfit(measured)
    print_bounds(measured, len(crops))


@calibrate.command()
def bisect(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: CalibrationFramesOption = None,
    input_space: InputSpaceOption = "srgb",
    keep_fp32: Annotated[
        bool,
        typer.Option(
            "--keep-fp32/--all-fp16",
            "--islands/--no-islands",
            help="Keep in FP32 the nodes that the folder's mixed graph keeps, or put all of decode in FP16.",
        ),
    ] = True,
    groups: Annotated[int, typer.Option(help="Most groups of nodes to try, each with a run of every frame.")] = 100,
    shown: Annotated[int, typer.Option(help="Most groups to print; all of them are in --json.")] = 24,
    side: SideOption = 64,
    max_frames: MaxFramesOption = 2,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
) -> None:
    """Find where FP16's error comes from: each part of decode in FP16 alone, the worst split down to single nodes.

    FP16 is emulated on the FP32 graph, node by node: ONNX Runtime on a CPU computes much of an FP16 graph in FP32 and
    shows less error than there is.
    """
    from rich.console import Console

    from ccnet.calibration.data import decode_feeds
    from ccnet.calibration.fp16.bisect import bisect as search
    from ccnet.calibration.fp16.bisect import fp32_nodes
    from ccnet.calibration.graph_runner import GraphRunner
    from ccnet.calibration.tables import print_bisection

    limit_cores(threads)
    _check_writable(json_file)
    artifacts = ArtifactFolder.open(folder)
    crops = _read_crops(artifacts, frames, input_space, side, max_frames)
    feeds = decode_feeds(artifacts, crops.values())
    fp32_kept = fp32_nodes(artifacts.read(artifacts.find("decode", precision="fp16"))) if keep_fp32 else []
    runner = GraphRunner(artifacts.read(artifacts.find("decode")))
    with Console(stderr=True).status("the whole graph") as status:
        bisection = search(runner, feeds, fp32_kept=fp32_kept, max_groups=groups, on_group=status.update)
    if json_file is not None:
        _write_json(json_file, crops, {"islands": keep_fp32, **asdict(bisection)})
    print_bisection(bisection, len(crops), shown)


@calibrate.command()
def int8(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: CalibrationFramesOption = None,
    input_space: InputSpaceOption = "srgb",
    observer: Annotated[
        Literal["all", "min-max", "percentile", "entropy"],
        typer.Option(help="Choice of the largest value that INT8 represents: the peak, or less for finer steps."),
    ] = "all",
    keep: Annotated[bool, typer.Option("--keep", help="Write the best graph even if it breaks the budget.")] = False,
    side: SideOption = 64,
    max_frames: MaxFramesOption = 12,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw of error over the share of work in INT8.")] = None,
) -> None:
    """Choose convolutions for INT8: which of them, with which observer, and whether the graph may be used.

    Every third frame is held back to judge by. Of the variants within the budget, the variant with most of the
    multiply-adds in INT8 is written into the folder as decode.int8.onnx. If there is none, nothing is written and the
    exit code is 1.
    """
    from ccnet.calibration.data import decode_feeds
    from ccnet.calibration.int8.histogram import OBSERVERS
    from ccnet.calibration.int8.plot import draw_trade_off
    from ccnet.calibration.int8.search import search, write_graph
    from ccnet.calibration.tables import describe_variant, print_variants
    from ccnet.runtime.viz.style import check_picture

    limit_cores(threads)
    _check_writable(json_file)
    if plot is not None:
        check_picture(plot)
    artifacts = ArtifactFolder.open(folder)
    crops = _read_crops(artifacts, frames, input_space, side, max_frames)
    observers = {name: choose for name, choose in OBSERVERS.items() if observer in (name, "all")}
    with _progress_bars() as on_progress:
        result = search(artifacts, decode_feeds(artifacts, crops.values()), observers, on_progress)
    if json_file is not None:
        variants = [asdict(variant) | {"broken": variant.broken} for variant in (*result.variants, result.final)]
        _write_json(json_file, crops, {"held": result.holdout_frames, "variants": variants[:-1], "file": variants[-1]})
    if plot is not None:
        draw_trade_off(result.variants, plot)
    print_variants(result)
    broken = ", ".join(result.final.broken)
    if broken and not keep:
        print(f"INT8 is rejected: {broken}, even with {describe_variant(result)}")
        raise typer.Exit(1)
    path = write_graph(artifacts, result.model, result.final)
    verdict = f"breaks the budget ({broken}) and is kept" if broken else "is accepted"
    print(f"INT8 {verdict}: {describe_variant(result)}; {path}")


@calibrate.command()
def contexts(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: CalibrationFramesOption = None,
    input_space: InputSpaceOption = "srgb",
    side: Annotated[
        int, typer.Option("--side", help="Longest side of the centres that are decoded: px, a multiple of 16.")
    ] = 256,
    max_frames: MaxFramesOption = 12,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
) -> None:
    """Report what a cheaper context costs: how far the cube moves where encode reads fewer pixels, or another frame.

    Each row compares the cubes of the frames under a cheaper context with those under the context of all their pixels.
    An error far below that of the network itself (ccnet evaluate) does not matter.
    """
    from ccnet.calibration.contexts import as_rows, measure
    from ccnet.calibration.tables import count_frames, print_rows

    limit_cores(threads)
    _check_writable(json_file)
    artifacts = ArtifactFolder.open(folder)
    _check_side(artifacts, side)
    whole = _read_crops(artifacts, frames, input_space, _WHOLE_FRAME, max_frames)
    with _progress_bars() as on_progress:
        costs = measure(artifacts, list(whole.values()), side, on_progress)
    if json_file is not None:
        _write_json(json_file, whole, {"side": side, "contexts": [asdict(cost) for cost in costs]})
    print_rows(list(as_rows(costs)))
    print(f"on {count_frames(len(whole))}, their centres of at most {side} px decoded in FP32")


def _check_side(artifacts: ArtifactFolder, side: int) -> None:
    multiple = artifacts.manifest.size_multiple
    if side < multiple or side % multiple:
        raise CCNetError(f"side is {side} px, expected a multiple of {multiple} px")


def _read_crops(
    artifacts: ArtifactFolder, sources: list[Path] | None, input_space: InputSpace, side: int, max_frames: int
) -> dict[Path, Frame]:
    """Read the frames to run, converted to the camera of the weights."""
    from ccnet.calibration.data import read_frames
    from ccnet.runtime.io.srgb import to_camera_rgb

    manifest = artifacts.manifest
    crops = read_frames(sources or [], side=side, multiple=manifest.size_multiple, max_frames=max_frames)
    return {path: to_camera_rgb(crop, input_space, manifest) for path, crop in crops.items()}


def _write_json(path: Path, frames: Iterable[Path], results: dict[str, object]) -> None:
    write_atomic(path, strict_json({"frames": [str(frame) for frame in frames], **results}, indent=1).encode())


def _check_writable(path: Path | None) -> None:
    """Refuse a file that cannot be written before minutes of work go into its content."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise CCNetError(f"{path}: cannot be written; name a file in a folder that exists")


@contextmanager
def _progress_bars() -> Iterator[ProgressCallback]:
    """Show a bar for each phase that the callback names."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:

        def on_progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done + 1)

        yield on_progress
