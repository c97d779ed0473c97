"""``ccnet export``, ``build``, ``check``, ``bundle`` and ``bench``."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.contract import (
    MANIFEST_NAME,
    ONNX_FORMATS,
    SHIPPED_WEIGHTS,
    CCNetError,
    Manifest,
    available_cores,
    make_folder,
    strict_json,
    write_atomic,
)
from ccnet.export.engine.plan import Asked
from ccnet.runtime.backends.select import Precision
from ccnet.runtime.cli.options import (
    ARTIFACTS_FOLDER,
    TILE_FLAGS,
    ArtifactsArgument,
    InputSpaceOption,
    JsonFlag,
    ThreadsOption,
    TileOption,
    WeightsOption,
)
from ccnet.runtime.io.srgb import InputSpace

if TYPE_CHECKING:
    from ccnet.export.engine.plan import Options
    from ccnet.export.reference import Reference
    from ccnet.export.verify import Row
    from ccnet.model import CCNet
    from ccnet.runtime.io.frames import Frame

app = typer.Typer()


@app.command()
def export(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    weights: WeightsOption = None,
    input: Annotated[
        Literal["float32", "uint8"],
        typer.Option(help="What graphs take: float32 (1, 3, H, W) in [0, 1] or uint8 (1, H, W, 3) as cameras give it."),
    ] = "float32",
    force: Annotated[bool, typer.Option("--force", help="Export again where nothing has changed, too.")] = False,
) -> None:
    """Weights → ONNX: encode, decode and full in FP32, decode in mixed FP16, and the manifest.

    Every graph is compared with PyTorch through ONNX Runtime before anything is written. A folder that is intact and
    was exported from the same weights, by the same tools and code, stays as it is.
    """
    from rich.console import Console

    from ccnet.export.fingerprint import export_fingerprint

    console, started = Console(stderr=True), time.perf_counter()
    path = weights or SHIPPED_WEIGHTS
    inputs = export_fingerprint(path, input)
    if not force and _is_fresh(folder, inputs):
        console.print(f"{folder}: up to date, nothing to export", highlight=False)
        return
    from ccnet.export.artifacts import export as export_model
    from ccnet.model.checkpoint import checkpoint_camera, load_checkpoint

    model, camera = load_checkpoint(path), checkpoint_camera(path)
    with console.status("export") as status:
        manifest = export_model(
            model,
            folder,
            input=input,
            camera=camera,
            inputs=inputs,
            tell=lambda stage: status.update(f"export: {stage}"),
        )
    console.print(f"exported in {time.perf_counter() - started:.0f} s")
    _print_artifacts(folder, manifest)


@app.command()
def build(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    backend: Annotated[
        Asked, typer.Option(help="Whose engine. auto: TensorRT's if there is a GPU for it, else TensorRT-RTX's.")
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Of decode; encode is always fp32. int8 needs 'ccnet calibrate int8' before.")
    ] = "fp16",
    window: Annotated[
        int | None,
        typer.Option(*TILE_FLAGS, help="Largest side of the tiles: px, a multiple of 16; 512 without --memory."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="MB that decoding a tile may take; decides the tile, and limits scratch memory."),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Decode takes tiles of just the largest size, and not all up to it.")
    ] = False,
    compatible: Annotated[
        bool,
        typer.Option(
            "--compatible", help="For tensorrt: runs with later versions and on other GPUs, too; may be slower."
        ),
    ] = False,
    strip: Annotated[
        bool,
        typer.Option("--strip", help="No weights in engines: they come from the graph, new ones need no new build."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be built and why, and build nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build again where nothing has changed, too.")] = False,
) -> None:
    """ONNX → engines, with a note on where each of them runs.

    An engine whose graph, options, TensorRT and GPU are as before is not built again. ONNX Runtime runs the graphs as
    they are and needs no engine.
    """
    from rich.console import Console

    from ccnet.export.engine import plan as builds
    from ccnet.runtime.tiling import tile_within

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    flavour, why = builds.choose(backend)
    if flavour is None:
        console.print(f"no engine built: {why}")
        return
    if window is not None and memory is not None:
        raise CCNetError("--tile and --memory both decide the tile: give one of them")
    budget = None if memory is None else int(memory * 1e6)
    options = builds.Options(
        backend=flavour,
        precision=precision,
        window=window or (tile_within(budget) if budget is not None else 512),
        static=static,
        compatible=compatible,
        strip=strip,
        workspace_bytes=budget,
    )
    jobs = builds.plan(folder, options, force=force)
    if not dry_run and not any(job.why for job in jobs):
        console.print(f"{folder}: engines are up to date, nothing to build")
        return
    console.print(f"engines of {flavour}: {why}")
    for job in jobs:
        shapes = " to ".join("×".join(map(str, shape)) for shape in dict.fromkeys((job.shapes[0], job.shapes[2])))
        state = f"to build, {job.why}" if job.why else "up to date"
        console.print(f"{job.file}: of {job.source.file}, rgb {shapes}: {state}")
    if not dry_run:
        _build(folder, options, force)


def _build(folder: Path, options: Options, force: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from ccnet.export.engine import plan as builds

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"build {options.backend}", total=None)

        def progress(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{phase[:60]:60}", completed=done, total=steps)

        manifest, reports = builds.build(folder, options, force=force, progress=progress)
    for report in reports:
        types = ", ".join(f"{count} {name}" for name, count in sorted(report.types.items()))
        size = f"{report.bytes / 1e6:.0f} MB" if report.bytes > 1e6 else f"{report.bytes / 1e3:.0f} kB"
        console.print(f"built in {report.seconds:.0f} s: {size} from {report.layers} layers ({types})")
    for purpose in dict.fromkeys(report.purpose for report in reports):
        console.print(purpose)
    _print_artifacts(folder, manifest)


@app.command()
def check(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            "--frames", "-f", help="Frame, or folder of them, may be repeated; if none, a bundle's golden outputs."
        ),
    ] = None,
    weights: WeightsOption = None,
    window: TileOption = 320,
    space: InputSpaceOption = "srgb",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for check.json and each frame's cube (.mat, .hdr) and pictures."),
    ] = None,
    as_json: JsonFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Check again where --out holds this very check.")] = False,
) -> None:
    """Do the artifacts compute what PyTorch computes? One table by the one tolerance table; exit code 1 if not.

    Every backend of this machine runs every frame. Without --frames, and so without torch, the golden outputs that came
    with a bundle are the reference. It also shows what a context from a reduced frame costs, which no tolerance judges.
    """
    from rich.console import Console

    from ccnet.export import verify as checks
    from ccnet.export.fingerprint import CHECKED, check_fingerprint, has_passed
    from ccnet.runtime.io.frames import frame_paths

    console = Console(stderr=True)
    paths = frame_paths(frames) if frames else []
    manifest = Manifest.read(folder)
    inputs = check_fingerprint(folder, (weights or SHIPPED_WEIGHTS) if paths else None, paths, (window, space))
    if out is not None and not force and not as_json and has_passed(out, folder, inputs):
        console.print(f"{out}: up to date, this check has passed before (--force repeats it)", highlight=False)
        return
    if not as_json:
        _print_artifacts(folder, manifest)
    results: dict[str, list[Row]] = {}
    broken: list[str] = []
    with console.status("check") as status:
        for subject in _subjects(folder, manifest, paths, weights, space):
            rows = results[subject.name] = []
            for row in checks.check(folder, subject.reference, window=window):
                rows.append(row)
                status.update(f"{subject.name}: after {row.what}")
            broken += [f"{subject.name}: {row.what}: {', '.join(row.broken)}" for row in rows if row.broken]
            if not as_json:
                _print_rows(subject.name, subject.reference.frame.shape, rows)
            if out is not None:
                status.update(f"{subject.name}: cube and pictures")
                written = _reconstruct(folder, subject, rows, out)
                if not as_json:
                    _print_written(written)
            for index, row in enumerate(rows):
                rows[index] = replace(row, worst=None)  # drawn, and as large as the frame
    document = {name: [_as_json(row) for row in rows] for name, rows in results.items()}
    if out is not None:
        report = {"inputs": inputs, "passed": not broken, "frames": document}
        write_atomic(out / CHECKED, strict_json(report, 2).encode())
    if as_json:
        print(strict_json(document, indent=2))
    if broken:
        console.print("\n".join(("parity fails", *broken)), style="bold red", highlight=False)
        raise typer.Exit(1)


@app.command()
def bundle(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    frames: Annotated[
        list[Path] | None,
        typer.Option("--frames", "-f", help="Frame, or folder of them, whose centres become golden; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle, one file.")] = Path("build/ccnet-bundle.zip"),
    weights: WeightsOption = None,
    side: Annotated[int, typer.Option(min=16, help="Longest side of a golden frame, px, a multiple of 16.")] = 256,
    space: InputSpaceOption = "srgb",
) -> None:
    """Graphs and golden outputs in one file, for a device without torch: 'make engine BUNDLE=…' there.

    It holds the folder's ONNX graphs, its manifest with a SHA-256 of each file, and for each frame what PyTorch makes
    of it, so that the device can check its engines.
    """
    from rich.console import Console

    from ccnet.export.bundle import make_bundle
    from ccnet.runtime.io.frames import frame_paths

    console = Console(stderr=True)
    manifest, paths = Manifest.read(folder), frame_paths(frames or [])
    with console.status("golden outputs"):
        subjects = _subjects(folder, manifest, paths, weights, space, side)
        bundled = make_bundle(folder, [subject.reference for subject in subjects], out)
    print(f"{out}: {len(bundled.artifacts)} files, {out.stat().st_size / 1e6:.1f} MB, {len(paths)} golden frames")


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A frame to check on: its name, its pixels for people, and what it should become."""

    name: str
    picture: Frame
    reference: Reference


def _subjects(
    folder: Path,
    manifest: Manifest,
    paths: list[Path],
    weights: Path | None,
    space: InputSpace,
    side: int | None = None,
) -> Iterator[_Subject]:
    """The frames by PyTorch, cut to their centres where they are larger than it can hold or than ``side``; if there are
    none, the folder's golden outputs."""
    from ccnet.export.reference import by_torch, golden
    from ccnet.runtime.io.frames import read_frame
    from ccnet.runtime.io.srgb import to_camera_rgb

    if not paths:
        if not any(artifact.kind == "golden" for artifact in manifest.artifacts):
            raise CCNetError(f"{folder}: no frames, and no golden outputs of a bundle: give --frames")
        for one in golden(manifest.find("golden", format="npz").read(folder), manifest):
            yield _Subject(name=one.source, picture=one.frame, reference=one)
        return
    model = _model(folder, manifest, weights)
    for path in paths:
        picture = _centre(read_frame(path), side)
        yield _Subject(
            name=path.name,
            picture=picture,
            reference=by_torch(model, to_camera_rgb(picture, space, manifest), path.name),
        )


def _model(folder: Path, manifest: Manifest, weights: Path | None) -> CCNet:
    from ccnet.model.checkpoint import load_checkpoint, weights_hash

    model = load_checkpoint(weights or SHIPPED_WEIGHTS)
    if weights_hash(model) != manifest.weights_sha256:
        raise CCNetError(f"{folder}: exported from other weights; name them with --weights, or export again")
    return model


def _centre(frame: Frame, side: int | None) -> Frame:
    """At most ``side`` px a side, or as many pixels as PyTorch can hold at once."""
    from ccnet.export.verify import MAX_PIXELS

    height, width = frame.shape[:2]
    shrink = min(1.0, math.sqrt(MAX_PIXELS / (height * width)))
    rows, columns = (min(size, side or max(16, int(size * shrink))) for size in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    centre: Frame = frame[top : top + rows, left : left + columns].copy()
    return centre


@app.command()
def bench(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for bench.json, bench.md and bench.png.")] = Path(
        "build/bench"
    ),
    weights: WeightsOption = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, in turns, after one that does not count.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every way.")] = available_cores(),
    quick: Annotated[bool, typer.Option("--quick", help="256 px only, and no large frames.")] = False,
) -> None:
    """Time CCNet beside the paper's loop, PyTorch and MST++'s design, in turns, on this CPU.

    The whole of it takes about half an hour; nothing else should run meanwhile. GPUs are not measured.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from ccnet.export.bench import inference as bench
    from ccnet.export.bench import report as bench_report
    from ccnet.model.checkpoint import load_checkpoint

    torch.set_num_threads(threads)
    make_folder(out)
    model, console = load_checkpoint(weights or SHIPPED_WEIGHTS), Console(stderr=True)
    sizes = bench.QUICK if quick else bench.SIZES
    grown = () if quick else bench.GROWN
    rows, growth, seconds = [], [], {}
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as progress:
        task = progress.add_task("rates", total=3 + len(sizes) + len(grown))
        limits, made = bench.rates(), {}
        progress.update(task, description="export")
        for name, network in bench.networks(model, Path(folder)):
            made[name] = network
            seconds[f"export, {name}{'' if name == 'loop' else ', with FP16, operators and comparison'}"] = (
                network.seconds
            )
            progress.advance(task)
        seconds["load, ours"] = bench.load_seconds(made["ours"], threads)
        for part, size in sizes:
            progress.update(task, description=f"{part} {size[0]}×{size[1]}")
            rows.append(bench.measure(made, part, size, repeats, threads, limits))
            console.print(f"{part} {size[0]}×{size[1]}: {rows[-1].ways[bench.OURS].median:.0f} ms", highlight=False)
            progress.advance(task)
        for size in grown:
            progress.update(task, description=f"frame {size[0]}×{size[1]}")
            growth.append(bench.growth(made["ours"], size, threads))
            progress.advance(task)
    found = bench_report.document(rows, growth, limits, seconds, {"repeats": repeats, "threads": threads})
    text = bench_report.markdown(found)
    write_atomic(out / "bench.json", strict_json(found, 2).encode())
    write_atomic(out / "bench.md", text.encode())
    bench_report.picture(found, out / "bench.png")
    typer.echo(text)


@app.command("bench-train")
def bench_train(
    patch: Annotated[int, typer.Option(min=16, help="Side of a patch, px.")] = 128,
    batch: Annotated[list[int], typer.Option(min=1, help="Patches a step; may be given more than once.")] = [1, 2],  # noqa: B006
    repeats: Annotated[
        int, typer.Option(min=1, help="Repetitions of each, in turns, after one that does not count.")
    ] = 5,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Time training with the paper's loop through autograd against training with our operators, on this CPU."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from ccnet.export.bench.training import compare, report, table, works
    from ccnet.model.config import CCNetConfig

    if threads:
        torch.set_num_threads(threads)
    console = Console(stderr=True)
    all_works, count = works(CCNetConfig(), patch, batch), len(batch) + 4
    # No thread that redraws: it would take its time from one of the cores that are measured
    pairs = track(all_works, "measures", count, console=console, transient=True, auto_refresh=False)
    comparisons = [compare(*pair, repeats) for pair in pairs]
    Console().print(table(comparisons))
    if out:
        document = report(comparisons, {"patch": patch, "batches": batch, "repeats": repeats})
        write_atomic(out, strict_json(document, 2).encode())


def _is_fresh(folder: Path, inputs: str) -> bool:
    """Whether a folder is intact and made from these inputs."""
    from ccnet.export.fingerprint import is_intact

    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        manifest = Manifest.read(folder)
    except CCNetError:
        return False  # an export replaces what is not a manifest of this version
    graphs = [artifact for artifact in manifest.artifacts if artifact.format in ONNX_FORMATS]
    return manifest.fingerprint == inputs and is_intact(folder, graphs)


def _reconstruct(folder: Path, subject: _Subject, rows: list[Row], out: Path) -> dict[str, str]:
    """What an integrator would run, on defaults: cubes and picture, how long the frame took, and the worst row."""
    from ccnet.runtime import Reconstructor, open_cube
    from ccnet.runtime.viz.plots import difference, picture

    make_folder(out)
    name, frame = Path(subject.name).stem, subject.reference.frame
    with Reconstructor.open(folder) as reconstructor:
        reconstructor(frame)  # the first run of a shape plans its memory
        started = time.perf_counter()
        cube = reconstructor(frame)
        ms = 1e3 * (time.perf_counter() - started)
        describe = reconstructor.describe()
    written = {key: describe[key] for key in ("backend", "graph", "precision")} | {"ms per frame": f"{ms:.0f}"}
    for suffix in (".mat", ".hdr"):
        target = out / f"{name}{suffix}"
        with open_cube(target, frame.shape[0], frame.shape[1], {"source": subject.name}) as writer:
            writer.write(0, cube)
        written["NTIRE cube" if suffix == ".mat" else "ENVI cube"] = str(target)
    picture(subject.picture, cube, out / f"{name}.png")
    written["picture"] = str(out / f"{name}.png")
    if drawn := [(row, row.worst) for row in rows if row.worst]:  # a context is no picture
        row, worst = max(drawn, key=lambda pair: pair[0].tolerance_used)
        target = out / f"{name}-worst.png"
        title = f"{row.what} against {row.against}"
        difference(subject.picture, worst.differences, worst.pixel, worst.expected, worst.found, title, target)
        written["worst comparison"] = str(target)
    return written


def _as_json(row: Row) -> dict[str, object]:
    values = asdict(replace(row, worst=None)) | {"broken": row.broken}
    del values["worst"]
    return values


def _print_artifacts(folder: Path, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("artifact", "kind", "format", "precision", "MB", title=str(folder), title_justify="left")
    for a in manifest.artifacts:
        size = (folder / a.file).stat().st_size / 1e6
        table.add_row(a.file, a.kind, a.format, a.precision, f"{size:.1f}")
    Console().print(table)


def _print_rows(name: str, shape: tuple[int, ...], rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    reference = rows[0].against
    title = f"{name}, {shape[1]}×{shape[0]} px, against {reference}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("what")
    for heading, width in {"MRAE": 7, "SAM °": 7, "PSNR dB": 5, "max": 7, "verdict": 8, "ms": 5}.items():
        table.add_column(heading, min_width=width)  # a narrow terminal wraps the words and cuts no figure
    for backend, group in itertools.groupby(rows, key=lambda row: row.backend):
        table.add_row(f"[italic]{backend}[/italic]")
        for row in group:
            p = row.parity
            what = row.what if row.against == reference else f"{row.what}, against {row.against}"
            figures = (f"{p.mrae:.1e}", f"{p.sam:.1e}", f"{p.psnr:.1f}", f"{p.max_abs:.1e}") if p else ("-",) * 4
            table.add_row(f"  {what}", *figures, row.verdict, f"{row.ms:.0f}" if p else "-")
    Console().print(table)


def _print_written(written: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in written.items():
        table.add_row(name, value)
    Console().print(table)
