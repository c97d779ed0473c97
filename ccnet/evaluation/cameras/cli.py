"""``ccnet evaluate-cameras``: the weights on frames of measured cameras and on photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccnet.contract import SHIPPED_WEIGHTS, strict_json, write_atomic
from ccnet.data.colour.lights import LIGHT_HELP
from ccnet.data.options import CAMERA_HELP, SOURCE_FORMAT, TrackOption
from ccnet.evaluation.environment import DeviceOption, select_device
from ccnet.runtime.cli.options import JsonFileOption, ThreadsOption

if TYPE_CHECKING:
    from ccnet.data.camera import Camera
    from ccnet.data.patches import SceneDataset
    from ccnet.evaluation.methods import Method
    from ccnet.evaluation.validation import ValidationScore

app = typer.Typer()


@app.command()
def evaluate_cameras(
    data: Annotated[str, typer.Option(help=f"Cubes to evaluate on: {SOURCE_FORMAT}; its validation split.")],
    fit: Annotated[str, typer.Option("--train", help="Cubes to fit regressions on, KIND:PATH.")],
    camera: Annotated[list[Path], typer.Option(help=f"{CAMERA_HELP}.")],
    illuminant: Annotated[str, typer.Option(help=f"Light on the scenes: {LIGHT_HELP}.")] = "daylight",
    weights: Annotated[
        Path,
        typer.Option(
            "--weights",
            "-w",
            show_default=False,
            help="Weights (.safetensors) of one camera; the package's own if not given.",
        ),
    ] = SHIPPED_WEIGHTS,
    held_out_brand: Annotated[
        list[str] | None,
        typer.Option(
            "--held-out-brand",
            help="Brand that the weights were not trained on, may be repeated: its cameras alone get rows, and all"
            " cameras a summary.",
        ),
    ] = None,
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
    from functools import partial

    from ccnet.data.camera import TRACKS, read_cameras
    from ccnet.data.colour.lights import find_light
    from ccnet.data.colour.measured import split_by_brand
    from ccnet.data.colour.target import read_target
    from ccnet.data.datasets import open_source
    from ccnet.data.patches import SceneDataset
    from ccnet.evaluation.validation import infer
    from ccnet.model.checkpoint import load_checkpoint

    from .photographs import study_photographs

    chosen = select_device(device, threads)
    network, target = partial(infer, load_checkpoint(weights).to(chosen)), read_target(weights)
    light, imaging = find_light(illuminant), TRACKS[track]
    others, held_out = split_by_brand([each.under(light) for each in read_cameras(camera)], held_out_brand or [])
    shown = held_out or others
    judged = SceneDataset(scenes=open_source(data, "val"), cameras=(target,), imaging=imaging)
    training = SceneDataset(scenes=open_source(fit, "train"), cameras=(target,), imaging=imaging)
    document = _print_cameras(network, target, shown, others if held_out else [], judged, training)
    document["held out"] = [camera.name for camera in held_out]
    if photographs:
        typer.echo("\n" + _head("photograph", "MRAE / dB / °", "with the best factor for each scene"))
        document["photographs"] = rows = {}
        for name, score, scaled in study_photographs(network, target, judged):
            typer.echo(_row(name, _cell(score), _cell(scaled)))
            rows[name] = _plain({"score": score, "best factor": scaled})
    if json:
        write_atomic(json, strict_json(document, 2).encode())


def _print_cameras(
    network: Method,
    target: Camera,
    shown: list[Camera],
    others: list[Camera],
    judged: SceneDataset,
    training: SceneDataset,
) -> dict[str, object]:
    """Print a row for each shown camera and the summary of all, and return them as plain values."""
    from ccnet.data.colour.matrix import smooth_reflectances

    from .study import AS_IT_IS, CORRECTED, OWN_REGRESSION, REGRESSION, THROUGH_MATRIX, study_cameras, summarise

    columns = (AS_IT_IS, THROUGH_MATRIX, CORRECTED, OWN_REGRESSION, REGRESSION)
    typer.echo(_head("camera", *columns))
    named = {target.name, *(camera.name for camera in shown)}
    study = study_cameras(network, target, [*shown, *others], judged, training, smooth_reflectances(), raw=named)
    table, summary = {}, {}
    for name, scores in study:
        table[name] = scores
        if name in named:
            typer.echo(_row(name, *(_cell(scores.get(column)) for column in columns)))
    for cameras in [shown, shown + others] if others else [shown]:
        parts = summarise([table[camera.name] for camera in cameras])
        for part, scores in zip(("mean", "lowest PSNR"), parts, strict=True):
            summary[f"{part} of {len(cameras)} cameras"] = scores
    for name, scores in summary.items():
        typer.echo(_row(f"**{name}**", *(_cell(scores.get(column)) for column in columns)))
    return {
        "cameras": {name: _plain(scores) for name, scores in table.items()},
        "summary": {name: _plain(scores) for name, scores in summary.items()},
    }


def _plain(scores: Mapping[str, ValidationScore]) -> dict[str, dict[str, float]]:
    from dataclasses import asdict

    return {column: asdict(score) for column, score in scores.items()}


def _head(*cells: str) -> str:
    return _row(*cells) + "\n" + _row(*["---"] * len(cells))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(score: ValidationScore | None) -> str:
    return f"{score.mrae:.3f} / {score.psnr:.1f} / {score.sam:.1f}" if score else ""
