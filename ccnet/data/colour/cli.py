"""``ccnet camera``: colour matrices that make any camera usable with the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from ccnet.contract import SHIPPED_WEIGHTS, CCNetError, strict_json, write_atomic

from .lights import LIGHT_HELP, find_light

WeightsOption = Annotated[
    Path,
    typer.Option(
        "--weights",
        "-w",
        show_default=False,  # the path of an installed file, which helps nobody
        help="Weights (.safetensors) or artifact folder that the matrix leads to; the package's own if not given.",
    ),
]
SpectraOption = Annotated[
    Path | None, typer.Option(help="Reflectances to fit over (.npz, .npy, .csv); if not given, any smooth spectra.")
]

camera_app = typer.Typer(help="Use any camera: colour matrices from a measured response or a colour chart.")


@camera_app.command()
def fit(
    source: Annotated[
        Path, typer.Argument(metavar="RESPONSE", help="Measured response of the camera (.json, .csv, .npz).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON to write, for --radiometry.")],
    illuminant: Annotated[str, typer.Option(help=f"Light on the scenes: {LIGHT_HELP}.")] = "daylight",
    weights: WeightsOption = SHIPPED_WEIGHTS,
    spectra: SpectraOption = None,
) -> None:
    """Fit the colour matrix from a camera to the weights' camera.

    The matrix is for white-balanced linear values; white stays white. Add black, gains, bits, … to the JSON where the
    frames are a sensor's samples.
    """
    from ccnet.data.camera import Camera

    from .matrix import fit_matrix, matrix_error
    from .target import read_target

    target, camera, light = read_target(weights), Camera.read(source), find_light(illuminant)
    moments = _reflectance_moments(spectra)
    lit = camera.under(light)
    matrix = fit_matrix(lit, target.response, moments)
    _write(out, camera.name, light.name, target.name, matrix, response=lit.response)
    left, before = (matrix_error(lit, target.response, moments, each) for each in (matrix, np.eye(3)))
    typer.echo(
        f"{out}: {camera.name} in {light.name}, to {target.name}; colours differ by {left:.1%} (RMS), without the"
        f" matrix by {before:.1%}"
    )


@camera_app.command()
def chart(
    photograph: Annotated[
        Path, typer.Argument(metavar="PHOTOGRAPH", help="Chart in one light: a raw file, or linear PNG, TIFF or .npy.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON to write, for --radiometry.")],
    name: Annotated[str | None, typer.Option(help="Name of the camera; the raw file's if not given.")] = None,
    spectra: Annotated[
        Path | None,
        typer.Option(help="Reflectances of your chart's patches (.npz, .npy), 24 × 31; its type's if not given."),
    ] = None,
    weights: WeightsOption = SHIPPED_WEIGHTS,
) -> None:
    """Fit the colour matrix to a photograph of a ColorChecker (24 patches, also in an open Passport).

    The chart is found by itself, however it is turned. The matrix and the white balance hold for its light.
    """
    from ccnet.contract import prefix_errors

    from .chart import PATCHES, chart_colours, fit_chart
    from .chart_picture import find_patches, read_linear
    from .target import read_target

    target = read_target(weights)
    wanted = chart_colours(target, spectra)
    picture, camera = read_linear(photograph)
    with prefix_errors(photograph):
        patches = find_patches(picture)
        fitted = fit_chart(patches.colours, wanted, patches.places)
    for patch, residual in zip(PATCHES, fitted.residuals, strict=True):
        typer.echo(f"{patch:14s} {residual:6.2%}")
    _write(out, name or camera or photograph.stem, "the chart's light", target.name, fitted.matrix, fitted.gains)
    typer.echo(
        f"{out}: {fitted.residual:.2%} of white off (RMS), {patches.pixels} px in the smallest patch, light falls off"
        f" to {fitted.falloff:.0%}"
    )


@camera_app.command("list")
def list_cameras() -> None:
    """List the cameras whose matrices come with the package."""
    from ccnet.runtime.io.cameras.matrices import known_cameras

    cameras = known_cameras()
    for camera in cameras.values():
        typer.echo(f"{camera.name}: {', '.join(each.light for each in camera.lights)}")
    typer.echo(f"{len(cameras)} cameras; {next(iter(cameras.values())).source}")


@camera_app.command()
def known(
    responses: Annotated[Path, typer.Argument(metavar="RESPONSES", help="Folder of measured responses.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON to write: the package's known.json.")],
    source: Annotated[str, typer.Option(help="Origin of the responses and spectra, with their licences.")],
    spectra: SpectraOption = None,
    weights: WeightsOption = SHIPPED_WEIGHTS,
) -> None:
    """Make the file of known cameras, their matrices and responses, from a folder of measured responses."""
    from ccnet.data.camera import response_files

    from .known import known_document
    from .target import read_target

    moments = _reflectance_moments(spectra)
    files = response_files(responses)
    document = known_document(files, read_target(weights), moments, source)
    write_atomic(out, _line_per_camera(document).encode())
    typer.echo(f"{out}: matrices and responses of {len(files)} cameras in daylight and tungsten light")


def _reflectance_moments(spectra: Path | None) -> npt.NDArray[np.float64]:
    """Return the second moments (31, 31) of the reflectances in a file; of any smooth ones without it."""
    from .matrix import read_reflectances, smooth_reflectances

    return smooth_reflectances() if spectra is None else read_reflectances(spectra)


def _line_per_camera(document: dict[str, Any]) -> str:
    lines = (
        f"  {strict_json(name, None)}: {strict_json(lights, None)}" for name, lights in document["cameras"].items()
    )
    head = strict_json({key: value for key, value in document.items() if key != "cameras"}, 1).rstrip("}\n")
    return head + ',\n "cameras": {\n' + ",\n".join(lines) + "\n }\n}\n"


def _write(
    path: Path,
    camera: str,
    light: str | None,
    target: str,
    matrix: npt.NDArray[np.float64],
    gains: tuple[float, float, float] | None = None,
    response: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write the JSON of a radiometry, a row of its response a line."""
    from ccnet.runtime.io.cameras.matrices import to_matrix, to_response

    if path.suffix.lower() != ".json":
        raise CCNetError(f"{path}: expected a name that ends in .json")
    fields: dict[str, Any] = {"camera": camera, "light": light, "target": target, "matrix": to_matrix(matrix)}
    if gains is not None:
        fields["gains"] = [round(gain, 5) for gain in gains]
    text = strict_json(fields, 2)
    if response is not None:
        rows = ",\n".join(f"    {strict_json(row, None)}" for row in to_response(response))
        text = text.rstrip("}\n") + f',\n  "response": [\n{rows}\n  ]\n}}'
    write_atomic(path, f"{text}\n".encode())
