"""``ccnet train``, ``ccnet evaluate`` and ``ccnet simulate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.camera import Track
from ccnet.config import CCNetConfig
from ccnet.contract import CCNetError
from ccnet.recipe import Recipe

if TYPE_CHECKING:
    from ccnet.camera import Array
    from ccnet.datasets import Split
    from ccnet.train import Trainer

app = typer.Typer()

PAPER = Recipe()
Device = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="Where to compute; the GPU if there is one, when not given.")
]
CameraFile = Annotated[Path, typer.Option(help="Camera response: an NTIRE 2020 .npz with 'filters' (31, 3).")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; as many as cores, when not given.")]


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Cubes to learn from: cave:FOLDER.")],
    val: Annotated[str, typer.Option(help="Cubes to validate on: cave:FOLDER.")],
    camera: CameraFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; one that holds this run resumes it.")],
    steps: Annotated[int, typer.Option(min=1, help="Adam updates.")] = PAPER.steps,
    batch: Annotated[int, typer.Option(min=1, help="Patches an update.")] = PAPER.batch,
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch, px.")] = PAPER.patch,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate after warm-up; a cosine ends it.")] = PAPER.lr,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear rise.")] = PAPER.warmup,
    bf16: Annotated[bool, typer.Option("--bf16", help="Convolutions in bfloat16.")] = PAPER.bf16,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the patches.")] = PAPER.seed,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="Steps between validations; each one also saves the run.")
    ] = PAPER.evaluate_every,
    units: Annotated[int, typer.Option(min=1, help="Spectrum Reconstruction Units.")] = CCNetConfig.units,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Train CCNet on hyperspectral cubes and the frames that a camera makes of them.

    The folder gets best.safetensors, the weights of the best validation, and last.safetensors, from which the same
    command goes on after an interruption. The defaults are the paper's recipe, which wants a GPU.
    """
    from ccnet.camera import Camera
    from ccnet.datasets import open_source
    from ccnet.train import Trainer
    from ccnet.views import Views

    recipe = Recipe(
        steps=steps, batch=batch, patch=patch, lr=lr, warmup=warmup, bf16=bf16, seed=seed, evaluate_every=evaluate_every
    )  # fmt: skip
    chosen = _compute_on(device, threads)
    eye = (Camera.read(camera),)
    seen = Views(scenes=open_source(data, "train"), cameras=eye)
    held = Views(scenes=open_source(val, "val"), cameras=eye)
    trainer = Trainer(out, CCNetConfig(units=units), recipe, seen, held, chosen)
    _run_with_progress(trainer)
    best = f"MRAE {trainer.best.mrae:.4f}, PSNR {trainer.best.psnr:.2f} dB on {len(held)} scenes"
    typer.echo(f"{trainer.folder / 'best.safetensors'}: {best}")
    typer.echo(f"{trainer.last}: step {trainer.step} of {recipe.steps}, trained on {chosen}")


@app.command()
def evaluate(
    data: Annotated[str, typer.Option(help="Cubes to judge on: cave:FOLDER.")],
    fit: Annotated[str, typer.Option("--train", help="Cubes to fit the regressions on: cave:FOLDER.")],
    camera: CameraFile,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", "-w", help="Weights (.safetensors); those that the package ships, when not given."),
    ] = None,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Compare CCNet with linear and root-polynomial regression from RGB, scene by scene.

    MRAE is |d| / (truth + 0.02), PSNR in dB for a peak of 1, SAM in degrees; whole scenes, nothing clipped.
    """
    from rich.console import Console
    from rich.table import Table

    from ccnet.baselines import Regression
    from ccnet.camera import Camera
    from ccnet.checkpoint import SHIPPED, load_checkpoint
    from ccnet.metrics import mrae, psnr, sam
    from ccnet.train import infer

    chosen = _compute_on(device, threads)
    model, eye = load_checkpoint(weights or SHIPPED).to(chosen), Camera.read(camera)
    scenes, known = _scenes(data, "val"), list(_scenes(fit, "train").values())
    methods: dict[str, Callable[[Array], Array]] = {"CCNet": lambda frame: infer(model, frame)}
    for name, degree in (("linear", 1), ("root-polynomial 2", 2), ("root-polynomial 3", 3)):
        methods[name] = Regression(known, eye, degree)

    table = Table("scene", "method", "MRAE", "PSNR / dB", "SAM / °")
    for method, estimate in methods.items():
        figures = []
        for scene, cube in scenes.items():
            result = estimate(eye.frame(cube))
            figures.append([metric(cube, result) for metric in (mrae, psnr, sam)])
            table.add_row(scene, method, *_format(figures[-1]))
        table.add_row("mean", method, *_format([sum(column) / len(scenes) for column in zip(*figures, strict=True)]))
        table.add_section()
    Console().print(table)


@app.command()
def simulate(
    source: Annotated[str, typer.Argument(help="Cubes to look at: KIND:PATH, as train takes them.")],
    camera: Annotated[
        list[Path], typer.Option(help="Camera response (.json, .csv, .npz), or a folder of them; may be repeated.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the frames; one inside it for each of several cameras.")
    ],
    illuminant: Annotated[
        Path | None, typer.Option(help="Light (.json, .csv, .npz); equal energy, when not given.")
    ] = None,
    track: Annotated[Track, typer.Option(help="clean: Eq. 2 alone, 16 bits; real: noise, 8 bits and JPEG.")] = "clean",
    split: Annotated[Literal["train", "val"], typer.Option(help="Of a data set that has published ones.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
) -> None:
    """Make the RGB frames that cameras would take of hyperspectral cubes.

    Frames are PNGs of linear light, white-balanced; 'ccnet reconstruct --space camera' reads them.
    """
    from rich.console import Console
    from rich.progress import track as progress

    from ccnet.camera import TRACKS, read_cameras
    from ccnet.datasets import open_source
    from ccnet.simulate import frame_folders, simulate

    cameras, scenes = read_cameras(camera, illuminant), open_source(source, split)
    written = simulate(scenes, cameras, TRACKS[track], out, seed)
    console = Console(stderr=True)
    for _ in progress(written, "frames", len(scenes) * len(cameras), console=console, transient=True):
        pass
    for eye, folder in zip(cameras, frame_folders(cameras, out), strict=True):
        typer.echo(f"{folder}: {len(scenes)} frames of {eye.name}, {track} track")


def _format(figures: list[float]) -> tuple[str, str, str]:
    error, decibel, angle = figures
    return f"{error:.4f}", f"{decibel:.2f}", f"{angle:.2f}"


def _run_with_progress(trainer: Trainer) -> None:
    """Run to the end: a bar with the last loss on a terminal, and a line for every validation."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TextColumn("left"), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starts", completed=trainer.step, total=trainer.recipe.steps)
        score = ""
        for event in trainer.run():
            if event.score:
                score = f"MRAE {event.score.mrae:.4f}, PSNR {event.score.psnr:.2f} dB"
                progress.console.print(f"step {event.step}: loss {event.loss:.4f}, lr {event.lr:.1e}, val {score}")
            progress.update(task, completed=event.step, description=f"loss {event.loss:.4f}  {score}")


def _scenes(source: str, split: Split) -> dict[str, Array]:
    """Name → cube of a source on the command line."""
    from ccnet.datasets import open_source

    return {scene.name: scene.read_cube() for scene in open_source(source, split)}


def _compute_on(device: str | None, threads: int | None) -> str:
    """The device that was asked for, or else the best there is; sets the number of CPU threads."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise CCNetError("device is cuda, but this torch sees no CUDA GPU: use --device cpu or install torch for CUDA")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
