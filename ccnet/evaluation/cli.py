"""``ccnet evaluate``: networks and regressions on cubes with known truth."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, camera_response, make_folder, strict_json, write_atomic
from ccnet.data.options import (
    SOURCE_FORMAT,
    CameraOption,
    ExposureOption,
    FrameOptions,
    IlluminantOption,
    TrackOption,
)
from ccnet.runtime.cli.options import ThreadsOption

from .cameras.cli import app as cameras_app
from .environment import DeviceOption, library_versions, select_device
from .error.cli import app as error_app

if TYPE_CHECKING:
    from ccnet.data.patches import SceneDataset
    from ccnet.model import CCNet

    from .evaluate import SceneScore
    from .methods import Method

BRIGHTNESS = (0.5, 0.25)
"""Factors of the frames' brightness at which all methods are judged as well."""

app = typer.Typer()
app.registered_commands += [*cameras_app.registered_commands, *error_app.registered_commands]


@app.command()
def evaluate(
    data: Annotated[str, typer.Option(help=f"Cubes to evaluate on: {SOURCE_FORMAT}; its validation split.")],
    weights: Annotated[
        list[Path] | None,
        typer.Option("--weights", "-w", help="Weights (.safetensors), may be repeated; the package's if not given."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option("--train", help="Cubes to fit regressions and a per-pixel MLP on, KIND:PATH; none if not given."),
    ] = None,
    camera: CameraOption = None,
    illuminant: IlluminantOption = None,
    colour_matrix: Annotated[
        bool,
        typer.Option(
            "--colour-matrix", help="Bring each camera's frames to the weights' camera, as 'camera fit' does."
        ),
    ] = False,
    track: TrackOption = "clean",
    exposure: ExposureOption = (1.0, 1.0),
    ensembles: Annotated[
        bool, typer.Option("--ensemble", help="Add each network's mean over eight mirrored and rotated frames.")
    ] = False,
    scale: Annotated[
        list[float] | None,
        typer.Option(min=0.1, max=4, help="Scale of the frames of --ensemble, may be repeated; 1 if not given."),
    ] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Add each network, and the MLP, with cubes corrected by their frames.")
    ] = False,
    per_scene: Annotated[bool, typer.Option("--per-scene", help="Add a table for each scene.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for metrics.json, bands.png and a picture of each scene.")
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Evaluate networks on cubes with known truth, beside regressions and a per-pixel MLP from RGB.

    MRAE is |d| / (Y + 0.02), and |d| / Y as NTIRE defines it, which is undefined where the truth holds zeros; PSNR is
    for a peak of 1. Nothing is clipped. docs/metrics.md has all definitions.
    """
    from rich.console import Console

    from ccnet.model.checkpoint import load_checkpoint

    from .evaluate import ensemble_gain_lines, selfcheck_lines
    from .methods import (
        REGRESSION_DEGREES,
        RELATIVE_REGRESSION,
        name_networks,
        network_methods,
        pixel_methods,
    )
    from .tables import score_tables

    scales = _ensemble_scales(ensembles, scale or [])
    chosen = select_device(device, threads)
    files = name_networks(weights or [SHIPPED_WEIGHTS])
    models = {name: load_checkpoint(path).to(chosen) for name, path in files.items()}
    methods = network_methods(models, scales)
    frames = FrameOptions(camera=camera, illuminant=illuminant, track=track, exposure=exposure)
    scenes = frames.open_scenes(data, "val", memory_gb=0)  # each scene is read once
    if colour_matrix:
        scenes = bring_to_weights(scenes, files.values())
    if out:
        make_folder(out)
    for warning in camera_mismatch_warnings(files, scenes):
        typer.echo(warning, err=True)
    if fit:
        training = frames.open_scenes(fit, "train", memory_gb=0)
        typer.echo(f"fitting regressions and a per-pixel MLP to {len(training)} scenes", err=True)  # takes minutes
        methods |= pixel_methods(bring_to_weights(training, files.values()) if colour_matrix else training)

    # A regression explains the frame already
    networks = [name for name in methods if name not in {*REGRESSION_DEGREES, RELATIVE_REGRESSION}]
    scores = _evaluate_with_progress(methods, scenes, out, networks if correct else [])
    Console().print(*score_tables(scores, per_scene), sep="\n")
    for line in (*selfcheck_lines(scores), *ensemble_gain_lines(scores)):
        typer.echo(line)
    if out:
        run = frames.describe(scenes) | {
            "data": data, "train": fit, "scales": scales, "weights": _describe_weights(files, models),
            "device": chosen,
        }  # fmt: skip
        _write_report(out, scores, run)
        typer.echo(f"{out / 'metrics.json'}: {len(scores)} methods on {len(scenes)} scenes; pictures are beside it")


def bring_to_weights(scenes: SceneDataset, weights: Iterable[Path]) -> SceneDataset:
    """Return the scenes with every camera's frames brought to the camera of the weights by its colour matrix.

    Args:
        scenes: Scenes with cameras.
        weights: Files of weights.

    Returns:
        The same scenes.

    Raises:
        CCNetError: The frames are published ones, or the weights are for several cameras.
    """
    from ccnet.data.colour.matrix import smooth_reflectances
    from ccnet.data.colour.target import read_target

    from .cameras.study import through_matrices

    targets = [read_target(path) for path in weights]
    if not scenes.cameras:
        raise CCNetError("--colour-matrix needs a --camera: a matrix is fitted from its response")
    if any((target.response != targets[0].response).any() for target in targets):
        raise CCNetError("--colour-matrix needs weights of a single camera: evaluate the others apart")
    return through_matrices(scenes, targets[0], smooth_reflectances())


def camera_mismatch_warnings(files: Mapping[str, Path], scenes: SceneDataset) -> Iterator[str]:
    """Warn of weights that belong to another camera than the frames, whose metrics are then not representative.

    Args:
        files: Method → its file of weights.
        scenes: Scenes to evaluate on.

    Yields:
        A line for each file of weights whose camera is known and differs from a camera of the frames.
    """
    from ccnet.model.checkpoint import checkpoint_camera

    for method, path in files.items():
        camera = checkpoint_camera(path)
        if camera is None:
            continue
        response = camera_response(camera)
        others = [other.name for other in scenes.cameras if other.matrix is None and (other.response != response).any()]
        if others:
            names = ", ".join(others[:3])
            yield f"{method}: its weights are for the camera {camera['name']}, the frames are of {names}"


def _ensemble_scales(ensembles: bool, scales: list[float]) -> list[float]:
    """Return the scales of the self-ensembles; none without self-ensembles."""
    if scales and not ensembles:
        raise CCNetError(f"--scale {scales[0]:g} is an option of the ensemble: give --ensemble with it")
    return (scales or [1.0]) if ensembles else []


def _evaluate_with_progress(
    methods: Mapping[str, Method], scenes: SceneDataset, folder: Path | None, corrected: Collection[str]
) -> dict[str, list[SceneScore]]:
    """Return method → its scores, scene by scene; draw a picture of each scene if there is a folder for them.

    Args:
        methods: Name → method.
        scenes: Scenes with known truth.
        folder: Where the pictures go; None draws none.
        corrected: Names of the methods whose cubes are judged after their correction by the frame, too.

    Returns:
        Method → its scores.
    """
    from rich.console import Console
    from rich.progress import track

    from .evaluate import evaluate_methods
    from .pictures import draw_scene

    scores: defaultdict[str, list[SceneScore]] = defaultdict(list)
    console, total = Console(stderr=True), (len(methods) + len(corrected)) * len(scenes)
    estimates = evaluate_methods(methods, scenes, BRIGHTNESS, corrected)
    shown = track(estimates, "scenes", total, console=console, transient=True)
    for index, group in itertools.groupby(shown, key=lambda estimate: estimate.index):
        scene_estimates = {estimate.method: estimate for estimate in group}
        for method, estimate in scene_estimates.items():
            scores[method].append(estimate.score)
        if folder:
            name, cubes = scenes.scenes[index].name, {name: each.cube for name, each in scene_estimates.items()}
            draw_scene(folder / f"{index + 1:03d}-{name}.png", name, estimate.frame, estimate.truth, cubes)
    return scores


def _write_report(folder: Path, scores: Mapping[str, Sequence[SceneScore]], run: dict[str, Any]) -> None:
    """Write metrics.json and bands.png."""
    import torch

    from .evaluate import json_report
    from .pictures import draw_bands

    run = run | {"threads": torch.get_num_threads(), "versions": library_versions()}
    document = json_report(scores) | {"run": run}
    band_rmse = {method: metrics["full"]["mean"]["band_rmse"] for method, metrics in document["methods"].items()}
    draw_bands(folder / "bands.png", band_rmse)
    write_atomic(folder / "metrics.json", strict_json(document, 2).encode())


def _describe_weights(files: Mapping[str, Path], models: Mapping[str, CCNet]) -> dict[str, Any]:
    """Return method → the file, hash, configuration and camera of its weights, for the report."""
    from ccnet.model.checkpoint import checkpoint_camera, weights_hash

    cameras = {name: checkpoint_camera(path) for name, path in files.items()}
    return {
        name: {
            "file": str(files[name]),
            "sha256": weights_hash(model),
            "config": model.config.to_dict(),
            "camera": (cameras[name] or {}).get("name"),
        }
        for name, model in models.items()
    }
