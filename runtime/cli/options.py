"""Command-line options and arguments that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccnet.contract import CCNetError
from ccnet.runtime.backends.select import BackendName, Precision
from ccnet.runtime.io.cubes import CubeFormat
from ccnet.runtime.io.srgb import InputSpace

ARTIFACTS_FOLDER = Path("build/ccnet")
"""Default folder of the artifacts."""

TILE_FLAGS = ("--tile", "--window")
"""Names of the tile option, for a command whose tile needs another help text than ``TileOption`` has."""

_INPUT_SPACE_FLAGS = ("--input-space", "--space")
_INPUT_SPACE_HELP = "Input colour space: srgb for photographs, camera for linear values of the weights' camera"

ArtifactsOption = Annotated[Path, typer.Option("--artifacts", help="Folder that 'ccnet export' wrote.")]

ArtifactsArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of the ONNX graphs, engines and manifest.")
]

WeightsOption = Annotated[
    Path | None, typer.Option("--weights", "-w", help="Weights (.safetensors); the package's own if not given.")
]

BackendOption = Annotated[
    BackendName,
    typer.Option("--backend", help="Library that runs the graphs; auto: an engine that runs here, else the CPU."),
]

DeviceOption = Annotated[
    int, typer.Option("--device", min=0, help="Index of the GPU, as CUDA numbers them, where one is used.")
]

PrecisionOption = Annotated[
    Precision | None,
    typer.Option("--precision", help="Precision of decode; if not given, the engine's own, or fp32 in ONNX Runtime."),
]

TileOption = Annotated[
    int | None,
    typer.Option(
        *TILE_FLAGS,
        help="Side of the tiles that a frame is decoded in: px, a multiple of 16; if not given, --memory decides.",
    ),
]

MEMORY_HELP = (
    "MB that a reconstruction may take: the process on a CPU, the GPU's memory beside the weights for engines; if not"
    " given, half of what is free, at most 2000 on a CPU, and no limit for engines."
)

MemoryOption = Annotated[float | None, typer.Option("--memory", help=MEMORY_HELP)]

InputSpaceOption = Annotated[InputSpace, typer.Option(*_INPUT_SPACE_FLAGS, help=f"{_INPUT_SPACE_HELP}.")]

OptionalInputSpaceOption = Annotated[
    InputSpace | None, typer.Option(*_INPUT_SPACE_FLAGS, help=f"{_INPUT_SPACE_HELP}; srgb if not given.")
]

RadiometryOption = Annotated[
    str | None,
    typer.Option(
        help="Camera that took the frames: a JSON of bits, black, gains, matrix, …, or a name of 'ccnet camera list'."
    ),
]

ExposureOption = Annotated[
    str | None, typer.Option(help="Exposure compensation in EV, in linear light: 1 doubles it; or auto.")
]

WhiteOption = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y",
        help="Grey or white surface to become neutral: X,Y in px, X,Y,REFLECTANCE for its brightness too, or auto.",
    ),
]

CorrectOption = Annotated[
    bool,
    typer.Option(
        "--correct/--no-correct",
        help="Correct each cube by its frame: spectra move until the camera, whose response must be known, would see"
        " the frame.",
    ),
]

ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; all cores that are available if not given.")
]

WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for another process that writes into the folder, or refuse.")
]

CubeFormatOption = Annotated[CubeFormat, typer.Option("--format", help="File format of the cubes in a folder.")]

JsonFileOption = Annotated[Path | None, typer.Option("--json", help="JSON file to write all figures to.")]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of tables.")]


def to_bytes(megabytes: float | None) -> int | None:
    """Return the bytes of ``--memory``; None where it is not given."""
    if megabytes is None:
        return None
    if not 0 < megabytes < 1e9:
        raise CCNetError(f"--memory is {megabytes:g} MB, expected more than 0")
    return int(megabytes * 1e6)
