"""``ccnet train`` and ``ccnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.config import CCNetConfig
from ccnet.contract import CCNetError
from ccnet.recipe import Recipe

if TYPE_CHECKING:
    from ccnet.data import Array

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
    from ccnet.data import Camera
    from ccnet.train import Trainer

    recipe = Recipe(
        steps=steps, batch=batch, patch=patch, lr=lr, warmup=warmup, bf16=bf16, seed=seed, evaluate_every=evaluate_every
    )  # fmt: skip
    chosen = _compute_on(device, threads)
    train_cubes, val_cubes = (tuple(_scenes(source).values()) for source in (data, val))
    config = CCNetConfig(units=units)
    trainer = Trainer(out, config, recipe, Camera.read(camera), train_cubes, val_cubes, chosen)
    _run(trainer)
    best = trainer.best
    typer.echo(
        f"{trainer.folder / 'best.safetensors'}: MRAE {best.mrae:.4f}, PSNR {best.psnr:.2f} dB on {len(val_cubes)} scenes"
    )
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
    from ccnet.checkpoint import SHIPPED, load_checkpoint
    from ccnet.data import Camera
    from ccnet.metrics import mrae, psnr, sam
    from ccnet.train import reconstruct

    chosen = _compute_on(device, threads)
    model, eye = load_checkpoint(weights or SHIPPED).to(chosen), Camera.read(camera)
    scenes, known = _scenes(data), list(_scenes(fit).values())
    methods: dict[str, Callable[[Array], Array]] = {"CCNet": lambda frame: reconstruct(model, frame)}
    for name, degree in (("linear", 1), ("root-polynomial 2", 2), ("root-polynomial 3", 3)):
        methods[name] = Regression(known, eye, degree)

    table = Table("scene", "method", "MRAE", "PSNR / dB", "SAM / °")
    for method, estimate in methods.items():
        figures = []
        for scene, cube in scenes.items():
            cube_estimate = estimate(eye.frame(cube))
            figures.append([metric(cube, cube_estimate) for metric in (mrae, psnr, sam)])
            table.add_row(scene, method, *_format(figures[-1]))
        table.add_row("mean", method, *_format([sum(column) / len(scenes) for column in zip(*figures, strict=True)]))
        table.add_section()
    Console().print(table)


def _format(figures: list[float]) -> tuple[str, str, str]:
    error, decibel, angle = figures
    return f"{error:.4f}", f"{decibel:.2f}", f"{angle:.2f}"
