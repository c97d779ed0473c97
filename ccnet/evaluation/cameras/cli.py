"""``ccnet evaluate-cameras``: the weights on frames of measured cameras and on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import SHIPPED_WEIGHTS, strict_json, write_atomic
from ccnet.data.options import CAMERA_HELP, SOURCE_FORMAT, TrackOption
from ccnet.evaluation.environment import DeviceOption, select_device
from ccnet.runtime.cli.options import JsonFileOption, ThreadsOption

if TYPE_CHECKING:
    from .study import Score

app = typer.Typer()


@app.command()
def evaluate_cameras(
    data: Annotated[str, typer.Option(help=f"Cubes to evaluate on: {SOURCE_FORMAT}; its validation split.")],
    fit: Annotated[str, typer.Option("--train", help="Cubes to fit regressions on, KIND:PATH.")],
    camera: Annotated[list[Path], typer.Option(help=f"{CAMERA_HELP}.")],
    illuminant: Annotated[
        str, typer.Option(help="Light on the scenes: daylight, tungsten, equal, a temperature or a file.")
    ] = "daylight",
    weights: Annotated[
        Path,
        typer.Option(
            "--weights",
            "-w",
            show_default=False,
            help="Weights (.safetensors) of one camera; the package's own if not given.",
        ),
    ] = SHIPPED_WEIGHTS,
    track: TrackOption = "clean",
    photographs: Annotated[
        bool, typer.Option("--photographs/--no-photographs", help="Add the table of photographs (JPEG).")
    ] = True,
    json: JsonFileOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Evaluate weights on frames of measured cameras, through colour matrices, and on photographs.

    The tables are Markdown, as in docs/cameras.md. Matrices are those of 'ccnet camera fit' without --spectra. A
    relative root-polynomial regression is fitted for each camera, and for the weights' camera behind the matrices.
    """
    from dataclasses import asdict
    from functools import partial

    from ccnet.data.camera import TRACKS, read_cameras
    from ccnet.data.colour.lights import find_light
    from ccnet.data.colour.matrix import smooth_reflectances
    from ccnet.data.colour.target import read_target
    from ccnet.data.datasets import open_source
    from ccnet.data.patches import SceneDataset
    from ccnet.evaluation.validation import infer
    from ccnet.model.checkpoint import load_checkpoint

    from .photographs import study_photographs
    from .study import AS_IT_IS, OWN_REGRESSION, REGRESSION, THROUGH_MATRIX, study_cameras

    chosen = select_device(device, threads)
    network, target = partial(infer, load_checkpoint(weights).to(chosen)), read_target(weights)
    light, imaging = find_light(illuminant), TRACKS[track]
    cameras = [each.under(light) for each in read_cameras(camera)]
    held_out = SceneDataset(scenes=open_source(data, "val"), cameras=(target,), imaging=imaging)
    training = SceneDataset(scenes=open_source(fit, "train"), cameras=(target,), imaging=imaging)
    columns = (AS_IT_IS, THROUGH_MATRIX, OWN_REGRESSION, REGRESSION)
    typer.echo(_row("camera", *columns) + "\n" + _row(*["---"] * 5))
    table = {}
    for name, scores in study_cameras(network, target, cameras, held_out, training, smooth_reflectances()):
        typer.echo(_row(name, *(_cell(scores.get(column)) for column in columns)))
        table[name] = {column: asdict(score) for column, score in scores.items()}
    document: dict[str, object] = {"cameras": table}
    if photographs:
        heads = ("photograph", "MRAE / dB / °", "with the best factor for each scene")
        typer.echo("\n" + _row(*heads) + "\n" + _row(*["---"] * 3))
        document["photographs"] = rows = {}
        for name, score, scaled in study_photographs(network, target, held_out):
            typer.echo(_row(name, _cell(score), _cell(scaled)))
            rows[name] = {"score": asdict(score), "best factor": asdict(scaled)}
    if json:
        write_atomic(json, strict_json(document, 2).encode())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(score: Score | None) -> str:
    return f"{score.mrae:.3f} / {score.psnr:.1f} / {score.sam:.1f}" if score else ""
