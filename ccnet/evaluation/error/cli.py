"""``ccnet fit-error``: the predicted error of weights, fitted to their residuals on scenes with known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, make_folder, strict_json, write_atomic
from ccnet.data.options import SOURCE_FORMAT, CameraOption, FrameOptions
from ccnet.runtime.cli.options import JsonFileOption, ThreadsOption

from ..environment import DeviceOption, select_device

if TYPE_CHECKING:
    from ccnet.data.patches import SceneDataset
    from ccnet.metrics.predicted_error import ErrorModel

    from ..methods import Method
    from .fit import ErrorFit
    from .judge import SceneCheck
    from .samples import ScenePixels

app = typer.Typer()


@app.command()
def fit_error(
    data: Annotated[str, typer.Option("--train", help=f"Cubes to fit on: {SOURCE_FORMAT}; its training split.")],
    weights: Annotated[
        list[Path] | None,
        typer.Option("--weights", "-w", help="Weights (.safetensors), may be repeated; the package's if not given."),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option("--data", help="Cubes to check on, KIND:PATH, its validation split; nothing is fitted."),
    ] = None,
    camera: CameraOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for NAME.error.npz; beside the weights if not given.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Parts of the scenes that per-pixel networks are fitted without, in turn.")
    ] = 5,
    like: Annotated[
        Path | None,
        typer.Option(
            help="NAME.error.npz of other weights on the same scenes, whose per-pixel networks are used again."
        ),
    ] = None,
    json: JsonFileOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
) -> None:
    """Fit the predicted error of weights, and print how well it does on scenes that it was not fitted to.

    'ccnet export' takes the file that lies beside the weights, and 'ccnet reconstruct --error' uses it. Per-pixel
    networks are fitted with and without parts of the scenes, once for all weights: a minute each on a quiet core, or
    taken from --like.
    """
    from rich.console import Console

    from ccnet.metrics.predicted_error import LEVEL
    from ccnet.model.checkpoint import load_checkpoint, weights_hash

    from ..methods import name_networks
    from .fit import fit_error as fit
    from .judge import report
    from .samples import PixelNetworks, fit_pixel_networks, network_methods

    chosen, console = select_device(device, threads), Console(stderr=True)
    files = name_networks(weights or [SHIPPED_WEIGHTS])
    targets = _targets(files, out)
    models = {name: load_checkpoint(path).to(chosen) for name, path in files.items()}
    options = FrameOptions(camera=camera, illuminant=None, track="clean", exposure=(1.0, 1.0))
    training = options.open_scenes(data, "train", memory_gb=1)
    if len(training) < max(3, folds):
        raise CCNetError(
            f"{data}: {len(training)} scenes, expected at least {max(3, folds)}, of which parts are left out"
        )
    held_out = options.open_scenes(check, "val", memory_gb=0) if check else None
    if out:
        make_folder(out)
    known = PixelNetworks.of_model(_read(like)) if like else None
    with console.status("networks") as status:
        methods = network_methods(models)
        training, pixels = _sample(training, methods)
        if len(training) < 3:
            raise CCNetError(f"{data}: {len(training)} scenes with data in all bands, expected at least 3")
        others = _sample(held_out, methods)[1] if held_out else []
        networks = known or fit_pixel_networks(training, LEVEL, folds, status.update)
    documents: dict[str, Any] = {}
    for name, target in targets.items():
        result = fit(pixels, name, networks, weights_hash(models[name]))
        write_atomic(target, result.model.to_bytes())
        parts = _check(result, name, pixels, others)
        factor = result.model.inflation
        typer.echo(f"{target}: half widths are enlarged by {factor:.2f} for scenes that the network never saw")
        reports = {part: report(checks) for part, checks in parts.items()}
        documents[name] = {"file": str(target), "inflation": factor, **reports}
    if json is not None:
        write_atomic(json, strict_json(documents, 2).encode())


def _targets(files: Mapping[str, Path], out: Path | None) -> dict[str, Path]:
    """Return name → file of the predicted error; refuse the package's own file and two weights with the same file."""
    from ccnet.metrics.predicted_error import error_file

    targets = {name: error_file(out / path.name if out else path) for name, path in files.items()}
    if out is None and any(path.resolve().parent == SHIPPED_WEIGHTS.parent for path in files.values()):
        raise CCNetError("the file beside the package's weights is the package's: give --out, a folder for yours")
    first: dict[Path, Path] = {}
    for name, target in targets.items():
        other = first.setdefault(target.resolve(), files[name])
        if other != files[name]:
            raise CCNetError(
                f"{target}: is the file for {other} and for {files[name]}, expected weights of other names"
            )
    return targets


def _sample(scenes: SceneDataset, methods: Mapping[str, Method]) -> tuple[SceneDataset, list[ScenePixels]]:
    """Return the scenes that have pixels with data in all bands, and these pixels; name the other scenes in a line."""
    from .samples import drop_empty, sample

    scenes, pixels, empty = drop_empty(scenes, sample(scenes, methods))
    if empty:
        typer.echo(f"left out, no pixel has data in all bands: {', '.join(empty)}", err=True)
    return scenes, pixels


def _read(path: Path) -> ErrorModel:
    from ccnet.metrics.predicted_error import ErrorModel

    if not path.is_file():
        raise CCNetError(f"{path}: no such file, expected a predicted error (.npz) made by 'ccnet fit-error'")
    return ErrorModel.from_bytes(path, path.read_bytes())


def _check(
    result: ErrorFit, name: str, training: Sequence[ScenePixels], others: Sequence[ScenePixels]
) -> dict[str, list[SceneCheck]]:
    """Return part of the scenes → its checks, and print them."""
    from rich.console import Console

    from .judge import check_scene, summary, table

    left_out = zip(result.left_out, training, strict=True)
    parts = {
        "training scenes, each left out of the fit": [check_scene(model, scene, name) for model, scene in left_out]
    }
    if others:
        parts["scenes to check on"] = [check_scene(result.model, scene, name) for scene in others]
    for part, checks in parts.items():
        Console().print(table(f"{name}: {part}", checks))
        typer.echo(summary(checks))
    return parts
