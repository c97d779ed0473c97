"""``ccnet export``: weights → ONNX graphs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ccnet.contract import (
    MANIFEST_NAME,
    SHIPPED_WEIGHTS,
    ArtifactFolder,
    CCNetError,
    Manifest,
    limit_cores,
)
from ccnet.runtime.cli.options import ARTIFACTS_FOLDER, ArtifactsArgument, ThreadsOption, WaitOption, WeightsOption
from ccnet.runtime.io.artifact_lock import lock_artifacts

from .tables import print_artifacts

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer()


@app.command()
def export(
    folder: ArtifactsArgument = ARTIFACTS_FOLDER,
    weights: WeightsOption = None,
    input: Annotated[
        Literal["float32", "uint8"],
        typer.Option(
            help="Type of the graphs' frames: float32 (1, 3, H, W) in [0, 1], or uint8 (1, H, W, 3) as cameras deliver."
        ),
    ] = "float32",
    plugin: Annotated[
        bool,
        typer.Option(
            "--plugin",
            help="Also write decode for TensorRT's plugin, which 'ccnet build --plugin' builds; not run yet.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Export again even where nothing has changed.")] = False,
    threads: ThreadsOption = None,
    wait: WaitOption = True,
) -> None:
    """Export weights to ONNX: encode, decode and full in FP32, decode and full in mixed FP16, and the manifest.

    Every graph is compared with PyTorch through ONNX Runtime before anything is written. A folder that is intact and
    was exported from the same weights, by the same tools and code, stays as it is.
    """
    from rich.console import Console

    from ccnet.export.fingerprint import export_fingerprint

    limit_cores(threads)
    console, started = Console(stderr=True), time.perf_counter()
    path = weights or SHIPPED_WEIGHTS
    fingerprint = export_fingerprint(path, input, plugin)
    with lock_artifacts(folder, wait=wait, say=console.print):
        if not force and _is_fresh(folder, fingerprint):
            console.print(f"{folder}: up to date, nothing to export", highlight=False)
            return
        manifest = _export(folder, path, input, plugin, fingerprint, console)
    console.print(f"exported in {time.perf_counter() - started:.0f} s")
    print_artifacts(ArtifactFolder(folder, manifest))


def _export(
    folder: Path, weights: Path, input: Literal["float32", "uint8"], plugin: bool, fingerprint: str, console: Console
) -> Manifest:
    """Export with a line on the terminal that says what is done, and return the manifest."""
    from ccnet.export.artifacts import export as export_model
    from ccnet.model.checkpoint import checkpoint_camera, load_checkpoint, weights_hash

    model, camera = load_checkpoint(weights), checkpoint_camera(weights)
    error = _read_error(weights, weights_hash(model), console)
    with console.status("export") as status:
        return export_model(
            model,
            folder,
            input=input,
            camera=camera,
            fingerprint=fingerprint,
            error=error,
            plugin=plugin,
            progress=lambda stage: status.update(f"export: {stage}"),
        )


def _read_error(weights: Path, weights_sha256: str, console: Console) -> bytes | None:
    """Read the predicted error that lies beside the weights; None where there is none, or one of other weights."""
    from ccnet.metrics.predicted_error import ErrorModel, error_file

    source = error_file(weights)
    if not source.is_file():
        return None
    data = source.read_bytes()
    if ErrorModel.from_bytes(source, data).weights_sha256 == weights_sha256:
        return data
    console.print(f"{source}: of other weights, left out; 'ccnet fit-error' makes a new one", highlight=False)
    return None


def _is_fresh(folder: Path, fingerprint: str) -> bool:
    """Return whether a folder is intact and its export has this fingerprint."""
    if not (folder / MANIFEST_NAME).is_file():
        return False
    try:
        opened = ArtifactFolder.open(folder)
    except CCNetError:
        return False  # an export replaces what is not a manifest of this version
    exported = [artifact for artifact in opened.manifest.artifacts if artifact.is_exported]
    return opened.manifest.fingerprint == fingerprint and opened.is_intact(exported)
