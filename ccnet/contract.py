"""What the model promises to everything that runs it: bands, tensors, sizes and the manifest.

numpy only, so that the runtime on a camera needs neither torch nor the model's code.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BANDS_NM: tuple[int, ...] = tuple(range(400, 701, 10))
"""Centre wavelengths of the cube's 31 bands, ascending, in nm."""

RGB, CONTEXT, CUBE = "rgb", "context", "cube"
"""Tensor names of every graph and engine."""

SIZE_MULTIPLE = 16
"""Height and width of every tensor the network sees: two halvings (4) and PAF's patch grid (16)."""

HALO = 80
"""Pixels that a tile must see beyond what it keeps, so that tiled equals full frame to 1e-5."""

FRAME_SCALE: Mapping[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Frame dtype → the fixed divisor that brings it to [0, 1]; never a per-image range."""

SHIPPED = Path(__file__).parent / "weights" / "ccnet-cave.safetensors"
"""The weights that the package ships; weights/README.md is their model card."""


@functools.cache
def compiled() -> Path | None:
    """The package's compiled kernels, or None where it was installed without a C compiler."""
    names = (f"_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    found = (Path(__file__).with_name(name) for name in names)
    return next((path for path in found if path.is_file()), None)


MANIFEST_NAME = "manifest.json"
MANIFEST_KEY = "ccnet.manifest"
"""File beside the artifacts, and ONNX metadata key, that hold the manifest."""

NATIVE = "onnx-native"
"""Format of graphs with the operators of ``ccnet/ort.c``, which the package's compiled kernels bring."""

NATIVE_DOMAIN = "ccnet"
"""Those operators' domain."""

GRAPHS = ("onnx", NATIVE)
"""Formats that ONNX Runtime runs."""

PRECISION_KEY = "ccnet.precision"
"""ONNX metadata key: JSON, ``types``: type → how many nodes give it; ``islands``: part of a mixed graph that stays FP32
→ [how many nodes, why].
"""


class CCNetError(ValueError):
    """Something the user gave does not fit; the message is one line: what came, what was expected, what to do."""


def camera_response(camera: Any) -> npt.NDArray[np.float32]:
    """The response (31, 3) in a camera's entry, as weights and manifests hold it; CCNetError where it is not one.

    camera: ``{"name": text, "response": 31 rows of [r, g, b]}``; each column sums to 1, as in ``ccnet.camera.Camera``.
    """
    if not isinstance(camera, dict) or camera.keys() != {"name", "response"}:
        raise CCNetError("camera is not a name and a response")
    if not isinstance(camera["name"], str) or not camera["name"].isprintable():
        raise CCNetError("camera's name is not plain text")
    try:
        table = np.array(camera["response"])
    except ValueError as error:
        raise CCNetError("camera's response has rows of different lengths") from error
    if table.dtype.kind not in "if" or table.shape != (len(BANDS_NM), 3):
        raise CCNetError(
            f"camera's response is {table.dtype} {table.shape}, expected {len(BANDS_NM)} rows of 3 numbers"
        )
    # NaN fails both comparisons
    if not (table.min() >= 0 and np.abs(table.sum(axis=0) - 1).max() <= 1e-3):
        raise CCNetError("camera's response is negative or not finite, or has columns that do not sum to 1")
    return table.astype(np.float32)


def padded(size: int, multiple: int = SIZE_MULTIPLE) -> int:
    """Smallest multiple of ``multiple`` (px) that holds ``size`` (px)."""
    return math.ceil(size / multiple) * multiple


def reflect_index(size: int, start: int, stop: int) -> npt.NDArray[np.intp]:
    """Source index in [0, size) of each position in [start, stop), mirrored about the edges' pixels.

    The one definition of the reflect padding, for torch and numpy alike; any overhang works, also for size 1.
    """
    period = max(2 * (size - 1), 1)
    distance = np.arange(start, stop) % period
    return np.minimum(distance, period - distance) if size > 1 else np.zeros_like(distance)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One graph or engine file.

    kind: ``encode`` (rgb → context), ``decode`` (rgb, context → cube), ``full`` (rgb → cube), or ``golden`` (frames
    and what the network makes of them).
    format: ``onnx``, ``onnx-native`` (with the package's own operators), the backend whose engine it is (``tensorrt``,
    ``tensorrt_rtx``), or ``npz``.
    precision: ``fp32``, ``fp16`` (mixed: typed FP16 with FP32 islands) or ``int8`` (Q/DQ convolutions, else mixed).
    """

    file: str
    kind: str
    format: str
    precision: str
    sha256: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = (self.file, self.kind, self.format, self.precision, self.sha256)
        if not all(isinstance(text, str) and text.isprintable() for text in texts) or not isinstance(
            self.details, dict
        ):
            raise CCNetError("an artifact's entry is not plain text with details: export again")
        if self.kind not in ("encode", "decode", "full", "golden"):
            raise CCNetError(f"artifact kind is {self.kind!r}, expected encode, decode, full or golden")
        if self.file in ("", "..") or Path(self.file).name != self.file:
            raise CCNetError(f"artifact file is {self.file!r}, expected a plain name inside the artifact's folder")

    def read(self, folder: Path) -> bytes:
        """The file's content, once it is what the manifest vouches for; CCNetError where it is not."""
        path = folder / self.file
        try:
            data = path.read_bytes()
        except OSError as error:
            why = f"cannot be read ({error.strerror}), the manifest names it"
            raise CCNetError(f"{path}: {why}: export again") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            why = "SHA-256 is not the manifest's, the file is damaged or of another export"
            raise CCNetError(f"{path}: {why}: export again")
        return data


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact folder holds and what its files were made from.

    input: ``float32`` (rgb is (1, 3, H, W) in [0, 1]) or ``uint8`` (rgb is (1, H, W, 3)).
    camera: of the frames that the weights were trained for, see ``camera_response``; None where that is not one camera
    or not known. inputs: hash of all that the export was made from, tools and code included; empty where not known.
    """

    config: dict[str, Any]
    weights_sha256: str
    context_size: int
    input: str
    tools: dict[str, str]
    artifacts: tuple[Artifact, ...] = ()
    size_multiple: int = SIZE_MULTIPLE
    halo: int = HALO
    camera: dict[str, Any] | None = None
    inputs: str = ""
    version: int = 1

    def find(self, kind: str, *, format: str = "onnx", precision: str = "fp32") -> Artifact:
        """The artifact of this kind, format and precision; CCNetError names those there are."""
        for artifact in self.artifacts:
            if (artifact.kind, artifact.format, artifact.precision) == (kind, format, precision):
                return artifact
        have = ", ".join(sorted({f"{a.kind} {a.format} {a.precision}" for a in self.artifacts})) or "none"
        raise CCNetError(f"no {kind} artifact of format {format} and precision {precision}; there are: {have}")

    def having(self, artifact: Artifact) -> Manifest:
        """This manifest with an artifact more, or in place of the one of the same file."""
        others = (one for one in self.artifacts if one.file != artifact.file)
        return replace(self, artifacts=(*others, artifact))

    def write(self, folder: Path) -> None:
        """As the folder's manifest; the last thing to be written, since it vouches for the other files."""
        write_atomic(folder / MANIFEST_NAME, self.to_json().encode())

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse and check; CCNetError says what is wrong."""
        try:
            raw = json.loads(text)
            version = raw.get("version")
            if version != 1:
                raise CCNetError(f"manifest version is {version!r}, expected 1: export again with this ccnet")
            artifacts = tuple(Artifact(**a) for a in raw.pop("artifacts"))
            manifest = cls(**raw, artifacts=artifacts)
        except CCNetError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]  # it may quote the file
            raise CCNetError(f"not a ccnet manifest ({why}): export again") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        ints = {"context_size": self.context_size, "size_multiple": self.size_multiple, "halo": self.halo}
        for name, value in ints.items():
            if type(value) is not int or value <= 0:
                raise CCNetError(f"manifest {name} is {value!r}, expected a positive integer: export again")
        types: dict[str, type] = {"config": dict, "tools": dict, "weights_sha256": str, "inputs": str}
        for name, kind in types.items():
            if not isinstance(getattr(self, name), kind):
                raise CCNetError(
                    f"manifest {name} is {getattr(self, name)!r}, expected a {kind.__name__}: export again"
                )
        if self.halo % self.size_multiple:
            raise CCNetError(f"manifest halo {self.halo} is not a multiple of {self.size_multiple}: export again")
        if self.input not in ("float32", "uint8"):
            raise CCNetError(f"manifest input is {self.input!r}, expected float32 or uint8: export again")
        if self.camera is not None:
            try:
                camera_response(self.camera)
            except CCNetError as error:
                raise CCNetError(f"manifest {error}: export again") from error

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of an artifact folder."""
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise CCNetError(
                f"{folder}: no {MANIFEST_NAME}; expected a folder made by 'ccnet export'; make or name one"
            )
        with naming(path):
            return cls.from_json(path.read_bytes())


def partial_of(path: Path) -> Path:
    """The file that ``write_atomic`` writes before it renames it."""
    return path.with_name(f".{path.name}.partial")


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, then rename, so that nobody ever sees half a file; CCNetError where it cannot be written."""
    partial = partial_of(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CCNetError(f"{path}: cannot be written ({error.strerror}); choose a folder that you can write") from error


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a file's content begin with its path."""
    try:
        yield
    except CCNetError as error:
        raise CCNetError(f"{path}: {error}") from error


@contextlib.contextmanager
def damaged(path: Path, expected: str) -> Iterator[None]:
    """Any exception becomes a CCNetError: on hostile bytes, decoders raise nearly every type there is."""
    try:
        yield
    except CCNetError:
        raise
    except Exception as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())[:200] or type(error).__name__
        raise CCNetError(f"{path}: damaged, missing, truncated or unsupported ({why}), expected {expected}") from error


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are not there yet; CCNetError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise CCNetError(f"{folder}: cannot be made ({why}); name a folder that you can write") from error


def plain_json(value: Any, indent: int) -> str:
    """JSON of plain values; it has neither infinity nor NaN, so they are null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda name: None), indent=indent)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
