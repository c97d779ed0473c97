"""``ccnet export``, ``ccnet build`` and ``ccnet check``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.contract import Manifest, make_folder, plain_json

if TYPE_CHECKING:
    from ccnet.export.check import Row
    from ccnet.runtime import trt
    from ccnet.runtime.frames import Frame

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="Folder of the ONNX graphs, engines and manifest.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", "-w", help="Weights (.safetensors); those that the package ships if not given."),
]


@app.command()
def export(
    folder: Folder = Path("build/ccnet"),
    weights: Weights = None,
    input: Annotated[
        Literal["float32", "uint8"],
        typer.Option(help="What graphs take: float32 (1, 3, H, W) in [0, 1] or uint8 (1, H, W, 3) as cameras give it."),
    ] = "float32",
) -> None:
    """Weights → ONNX: encode, decode and full in FP32, decode in mixed FP16, and the manifest.

    Every graph is compared with PyTorch through ONNX Runtime before anything is written.
    """
    from rich.console import Console

    from ccnet.checkpoint import SHIPPED, checkpoint_camera, load_checkpoint
    from ccnet.export.artifacts import export as export_model

    console, started = Console(stderr=True), time.perf_counter()
    path = weights or SHIPPED
    model, camera = load_checkpoint(path), checkpoint_camera(path)
    with console.status("export") as status:
        manifest = export_model(
            model, folder, input=input, camera=camera, tell=lambda stage: status.update(f"export: {stage}")
        )
    console.print(f"exported in {time.perf_counter() - started:.0f} s")
    _print_artifacts(folder, manifest)


@app.command()
def build(
    folder: Folder = Path("build/ccnet"),
    backend: Annotated[
        Literal["auto", "tensorrt", "tensorrt-rtx", "onnxruntime"],
        typer.Option(help="Whose engine to build. auto: TensorRT's if there is a GPU for it, else TensorRT-RTX's."),
    ] = "auto",
    window: Annotated[
        int, typer.Option(help="Largest side in px of the tiles that the engine takes, a multiple of 16.")
    ] = 512,
) -> None:
    """ONNX → engines: encode in FP32 and decode in mixed FP16, with a note on where each of them runs.

    ONNX Runtime runs the graphs as they are and needs no engine.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ccnet.export.artifacts import build as build_engines

    console = Console(stderr=True)
    flavour = _flavour(backend)
    if flavour is None:
        why = "was asked for" if backend == "onnxruntime" else "is what this machine has: no TensorRT is installed"
        console.print(f"no engine built: ONNX Runtime {why}, and it runs the graphs themselves")
        return
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"build {flavour}", total=None)

        def progress(phase: str, done: int, steps: int) -> None:
            bar.update(task, description=f"{phase[:60]:60}", completed=done, total=steps)

        manifest, purposes = build_engines(folder, flavour, window=window, progress=progress)
    for purpose in dict.fromkeys(purposes):
        console.print(purpose)
    _print_artifacts(folder, manifest)


@app.command()
def check(
    folder: Folder = Path("build/ccnet"),
    frames: Annotated[
        list[Path] | None,
        typer.Option("--frames", "-f", help="Frame, or folder of frames, to compare on; may be given several times."),
    ] = None,
    weights: Weights = None,
    window: Annotated[int, typer.Option(help="Side in px of the tiled runs' windows, a multiple of 16.")] = 320,
    space: Annotated[
        Literal["srgb", "camera"],
        typer.Option(help="What frames hold: srgb, as photographs do, or camera, linear and of the weights' camera."),
    ] = "srgb",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for each frame's cube (.mat, .hdr) and picture (.png).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparisons as JSON, for CI.")] = False,
) -> None:
    """Do the artifacts compute what PyTorch computes? One table by the one tolerance table; exit code 1 if not.

    It also shows what a context from a reduced frame costs, which no tolerance judges.
    """
    from rich.console import Console

    from ccnet.checkpoint import SHIPPED, load_checkpoint
    from ccnet.export import check as checks
    from ccnet.runtime.frames import frame_paths, read_frame
    from ccnet.runtime.srgb import as_camera

    console = Console(stderr=True)
    paths = frame_paths(frames or [])
    manifest, model = Manifest.read(folder), load_checkpoint(weights or SHIPPED)
    if not as_json:
        _print_artifacts(folder, manifest)
    results: dict[str, list[Row]] = {}
    for path in paths:
        picture = read_frame(path, max_pixels=checks.MAX_PIXELS)
        frame = as_camera(picture, space, manifest)
        rows = results[str(path)] = []
        with console.status(f"{path.name}: PyTorch") as status:
            for row in checks.check(model, folder, frame, window=window):
                rows.append(row)
                status.update(f"{path.name}: after {row.what}")
            if out is not None:
                status.update(f"{path.name}: cube and picture")
                written = _reconstruct(folder, path.stem, picture, frame, out)
        if not as_json:
            _print_rows(path, frame.shape, rows)
            if out is not None:
                _print_written(written)
    broken = [
        f"{path}: {row.what}: {', '.join(row.broken)}" for path, rows in results.items() for row in rows if row.broken
    ]
    if as_json:
        print(plain_json({path: [_as_json(row) for row in rows] for path, rows in results.items()}, indent=2))
    if broken:
        console.print("\n".join(("parity fails", *broken)), style="bold red", highlight=False)
        raise typer.Exit(1)


def _flavour(backend: str) -> trt.Name | None:
    """The TensorRT to build with; None for none. What was asked for and is missing is refused by ``build_engine``."""
    from ccnet.runtime import trt

    named: dict[str, trt.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    if backend != "auto":
        return named.get(backend)
    loads = trt.available()
    if "tensorrt" in loads and trt.has_gpu():
        return "tensorrt"
    return "tensorrt_rtx" if "tensorrt_rtx" in loads else None


def _reconstruct(folder: Path, name: str, picture: Frame, frame: Frame, out: Path) -> dict[str, str]:
    """What an integrator would run, on defaults: cubes and picture, and how long the frame took."""
    from ccnet.runtime import Reconstructor, open_cube
    from ccnet.runtime.picture import picture as draw

    make_folder(out)
    with Reconstructor.open(folder) as reconstructor:
        reconstructor(frame)  # the first run of a shape plans its memory
        started = time.perf_counter()
        cube = reconstructor(frame)
        ms = 1e3 * (time.perf_counter() - started)
        describe = reconstructor.describe()
    written = {"backend": describe["backend"], "precision": describe["precision"], "ms per frame": f"{ms:.0f}"}
    for suffix in (".mat", ".hdr"):
        target = out / f"{name}{suffix}"
        with open_cube(target, frame.shape[0], frame.shape[1], {"source": name}) as writer:
            writer.write(0, cube)
        written["NTIRE cube" if suffix == ".mat" else "ENVI cube"] = str(target)
    draw(picture, cube, out / f"{name}.png")
    return {**written, "picture": str(out / f"{name}.png")}


def _as_json(row: Row) -> dict[str, object]:
    return {**asdict(row), "broken": row.broken}


def _print_artifacts(folder: Path, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("artifact", "kind", "format", "precision", "MB", title=str(folder), title_justify="left")
    for a in manifest.artifacts:
        size = (folder / a.file).stat().st_size / 1e6
        table.add_row(a.file, a.kind, a.format, a.precision, f"{size:.1f}")
    Console().print(table)


def _print_rows(path: Path, shape: tuple[int, ...], rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{path.name}, {shape[1]}×{shape[0]} px"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("what", "against", "by"):
        table.add_column(name)
    for name, width in {"MRAE": 7, "SAM °": 7, "PSNR dB": 5, "max": 7, "verdict": 8, "ms": 5}.items():
        table.add_column(name, min_width=width)  # a narrow terminal wraps the words and cuts no figure
    for row in rows:
        p = row.parity
        figures = (f"{p.mrae:.1e}", f"{p.sam:.1e}", f"{p.psnr:.1f}", f"{p.max_abs:.1e}") if p else ("-",) * 4
        verdict = "not run" if p is None else "FAILS" if row.broken else "passes" if row.tolerance else "reported"
        table.add_row(row.what, row.against, row.backend, *figures, verdict, f"{row.ms:.0f}" if p else "-")
    Console().print(table)


def _print_written(written: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in written.items():
        table.add_row(name, value)
    Console().print(table)
