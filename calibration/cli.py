"""``ccnet calibrate ranges``, ``ccnet calibrate bisect`` and ``ccnet calibrate int8``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.contract import CCNetError, Manifest, strict_json, write_atomic
from ccnet.runtime.cli.options import ARTIFACTS_FOLDER, ArtifactsArgument, InputSpaceOption, JsonFileOption
from ccnet.runtime.io.srgb import InputSpace

if TYPE_CHECKING:
    from ccnet.calibration.fp16.bisect import Bisection
    from ccnet.calibration.fp16.ranges import Range
    from ccnet.calibration.int8.search import Outcome, ProgressCallback
    from ccnet.runtime.io.frames import Frame

app = typer.Typer()
calibrate = typer.Typer(help="Which precision a network's tensors need, measured on real frames.")
app.add_typer(calibrate, name="calibrate")

Frames = Annotated[
    list[Path] | None,
    typer.Option("--frames", "-f", help="Frame, or folder of frames, all different; may be given several times."),
]
Side = Annotated[int, typer.Option(help="Longest side in px of the centre crop that is run, a multiple of 16.")]
Most = Annotated[int, typer.Option(help="Most frames to run: those that differ most from each other.")]


@calibrate.command()
def ranges(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Frames = None,
    space: InputSpaceOption = "srgb",
    graph: Annotated[Literal["decode", "encode"], typer.Option(help="The graph to look at.")] = "decode",
    side: Side = 128,
    most: Most = 16,
    json_file: JsonFileOption = None,
) -> None:
    """What FP16 cannot hold: the range of every tensor of a graph, and a verdict on each.

    Overflow: it may pass 65504. Underflow: a divisor, a norm's floor or the sum of squares in it comes below 6.1e-5,
    FP16's smallest normal number. What a tensor may reach is proved for any frame where it can be, and else 16 times
    what was seen. It is a report: the exit code is 0 whatever does not fit.
    """
    from rich.console import Console

    from ccnet.calibration.fp16.ranges import measure

    _check(json_file)
    crops = _crops(folder, frames, space, side, most)
    with Console(stderr=True).status(f"ranges of {len(crops)} frames"):
        found = measure(folder, list(crops.values()), graph)
    if json_file is not None:
        tensors = [asdict(one) | {"verdict": one.verdict} for one in found]
        _write(json_file, crops, {"graph": graph, "ranges": tensors})
    _print_unfit(found)
    _print_bounds(found, len(crops))


@calibrate.command()
def bisect(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Frames = None,
    space: InputSpaceOption = "srgb",
    islands: Annotated[
        bool, typer.Option(help="Keep in FP32 what the folder's mixed graph keeps, or put all of decode in FP16.")
    ] = True,
    groups: Annotated[int, typer.Option(help="Most groups of nodes to try, each with a run of every frame.")] = 100,
    shown: Annotated[int, typer.Option(help="Most groups to print; all of them are in --json.")] = 24,
    side: Side = 64,
    most: Most = 2,
    json_file: JsonFileOption = None,
) -> None:
    """Where FP16's error comes from: each part of decode in FP16 alone, the worst split down to single nodes.

    FP16 is emulated on the FP32 graph, node by node: ONNX Runtime on a CPU computes much of an FP16 graph in FP32 and
    shows less error than there is.
    """
    from rich.console import Console

    from ccnet.calibration.fp16.bisect import bisect as search
    from ccnet.calibration.fp16.bisect import fp32_nodes

    from .data import feeds_of
    from .tensors import Tensors

    _check(json_file)
    manifest, crops = Manifest.read(folder), _crops(folder, frames, space, side, most)
    feeds = feeds_of(folder, crops.values())
    kept = fp32_nodes(manifest.find("decode", precision="fp16").read(folder)) if islands else []
    tensors = Tensors(manifest.find("decode").read(folder))
    with Console(stderr=True).status("all of it") as status:
        found = search(tensors, feeds, kept=kept, most=groups, tell=status.update)
    if json_file is not None:
        _write(json_file, crops, {"islands": islands, **asdict(found)})
    _print_bisection(found, len(crops), shown)


@calibrate.command()
def int8(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Frames = None,
    space: InputSpaceOption = "srgb",
    observer: Annotated[
        Literal["all", "min-max", "percentile", "entropy"],
        typer.Option(help="How far INT8 reaches for a tensor: to the largest value seen, or less for finer steps."),
    ] = "all",
    keep: Annotated[bool, typer.Option("--keep", help="Write the best graph also where it breaks the budget.")] = False,
    side: Side = 64,
    most: Most = 12,
    json_file: JsonFileOption = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw of error over the share of work in INT8.")] = None,
) -> None:
    """Convolutions in INT8: which of them, by which observer, and whether the result may be used.

    Every third frame is held back to judge by. Of the variants within the budget the one with most of the
    multiply-adds in INT8 is written into the folder as decode.int8.onnx. If there is none, nothing is written and the
    exit code is 1.
    """
    from ccnet.calibration.int8.histogram import OBSERVERS
    from ccnet.calibration.int8.plot import trade_off
    from ccnet.calibration.int8.search import quantise, store
    from ccnet.runtime.viz.style import check_picture

    from .data import feeds_of

    _check(json_file)
    if plot is not None:
        check_picture(plot)
    crops = _crops(folder, frames, space, side, most)
    chosen = {name: choose for name, choose in OBSERVERS.items() if observer in (name, "all")}
    with _progress() as tell:
        found = quantise(folder, feeds_of(folder, crops.values()), chosen, tell)
    if json_file is not None:
        tried, file = (
            [asdict(one) | {"broken": one.broken} for one in some] for some in (found.variants, [found.final])
        )
        _write(json_file, crops, {"held": found.held, "variants": tried, "file": file[0]})
    if plot is not None:
        trade_off(found.variants, plot)
    _print_variants(found)
    if found.final.broken and not keep:
        print(f"INT8 is rejected: {', '.join(found.final.broken)}, even with {_summary(found)}")
        raise typer.Exit(1)
    path = store(folder, found.model, found.final)
    broken = ", ".join(found.final.broken)
    print(f"INT8 {f'breaks the budget ({broken}) and is kept' if broken else 'is accepted'}: {_summary(found)}; {path}")


def _crops(folder: Path, given: list[Path] | None, space: InputSpace, side: int, most: int) -> dict[Path, Frame]:
    """The frames to run, as the weights' camera would give them."""
    from ccnet.runtime.io.srgb import to_camera_rgb

    from .data import read_frames

    manifest = Manifest.read(folder)
    crops = read_frames(given or [], side=side, multiple=manifest.size_multiple, most=most)
    return {path: to_camera_rgb(crop, space, manifest) for path, crop in crops.items()}


def _write(path: Path, frames: Iterable[Path], found: dict[str, object]) -> None:
    write_atomic(path, strict_json({"frames": [str(one) for one in frames], **found}, indent=1).encode())


def _check(path: Path | None) -> None:
    """CCNetError where a file cannot be written, before minutes go into what it is to hold."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise CCNetError(f"{path}: cannot be written; name a file in a folder that exists")


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """A bar for each phase."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=of)
            progress.update(tasks[what], completed=done + 1)

        yield tell


def _print_unfit(found: list[Range]) -> None:
    """A row for each part of the network, operator and verdict; the same part occurs in every block."""
    from rich.console import Console
    from rich.table import Table

    from ccnet.calibration.fp16.ranges import unfit

    rows: dict[tuple[str, ...], list[Range]] = defaultdict(list)
    for one in unfit(found):
        rows[one.part, one.operator, one.what, one.verdict].append(one)
    table = Table()
    for title in ("part", "operator", "what", "of", "seen", "reason"):
        table.add_column(title, no_wrap=title not in ("what", "reason"))
    for (part, operator, what, verdict), alike in rows.items():
        worst = max(alike, key=lambda one: one.bound if one.verdict == "overflow" else -one.smallest)
        seen = worst.largest if verdict == "overflow" else worst.smallest
        table.add_row(part, operator, what, str(len(alike)), f"{seen:.1e}", worst.reason)
    if rows:
        Console().print(table)


def _print_bounds(found: list[Range], frames: int) -> None:
    """A row for each operator: its tensors' largest value and share of subnormal values, and their bounds.

    The bounds are the largest of those that are proved, and of those that rest on what was seen.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    activations = [one for one in found if one.what == "activation"]
    operators: dict[str, list[Range]] = defaultdict(list)
    for one in activations:
        operators[one.operator or "input"].append(one)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("operator", "tensors", "seen", "subnormal", "proved", "at most", "16 × seen"):
        table.add_column(title, justify="left" if title == "operator" else "right", no_wrap=True)
    for operator, alike in sorted(operators.items()):
        proved = [one.bound for one in alike if one.proof == "proved"]
        measured = [one.bound for one in alike if one.proof == "measured"]
        bounds = (f"{max(some):.2g}" if some else "-" for some in (proved, measured))
        seen, lost = max(one.largest for one in alike), max(one.subnormal for one in alike)
        table.add_row(operator, str(len(alike)), f"{seen:.3g}", f"{lost:.1%}", str(len(proved)), *bounds)
    Console().print(table)
    held = sum(one.verdict == "fits" for one in found)
    certain = sum(one.verdict == "fits" and one.proof == "proved" for one in found)
    largest = max(activations, key=lambda one: one.largest)
    print(
        f"{held} of {len(found)} ranges fit FP16 on {_frames(frames)}, {certain} of them proved for any frame; largest"
        f" activation {largest.largest:.3g} ({largest.tensor})"
    )


def _print_bisection(found: Bisection, frames: int, shown: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("in FP16 alone", "nodes", "share", "MRAE", "max"):
        table.add_column(title, justify="left" if title == "in FP16 alone" else "right", no_wrap=True)
    for one in found.groups[:shown]:
        share = f"{one.share:.1%}" if one.share < float("inf") else "not finite"
        name = one.name if one.split or one.nodes == 1 else f"{one.name} (not split)"
        table.add_row(name, str(one.nodes), share, f"{one.parity.mrae:.1e}", f"{one.parity.max_abs:.1e}")
    Console().print(table)
    nodes = sum(one.nodes for one in found.named)
    print(f"all in FP16, on {_frames(frames)}: {found.all}")
    print(f"but for the {len(found.named)} groups named here as the cause, {nodes} nodes: {found.rest}")
    print(f"the cause: {', '.join(one.name for one in found.named)}")


def _print_variants(found: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for title in ("observer", "layers", "INT8", "MRAE", "SAM °", "PSNR", "budget"):
        table.add_column(title, justify="left" if title in ("observer", "budget") else "right", no_wrap=True)
    for one in found.variants:
        figures = (f"{one.parity.mrae:.1e}", f"{one.parity.sam:.1e}", f"{one.parity.psnr:.1f}")
        verdict = ("broken" if one.broken else "kept") + ", best" * (one is found.best)
        table.add_row(one.observer, str(len(one.layers)), f"{one.share:.0%}", *figures, verdict)
    Console().print(table)


def _summary(found: Outcome) -> str:
    one = found.final
    what = f"{len(one.layers)} layers, {one.share:.0%} of the convolutions' multiply-adds, by {one.observer}"
    return f"{what}; on {_frames(found.held)} held back {one.parity}"


def _frames(count: int) -> str:
    return f"{count} frame{'s' * (count > 1)}"
