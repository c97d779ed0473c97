"""The manifest of an artifact folder: which files it holds, what they were made from, and their hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ccnet.contract.errors import CCNetError, prefix_errors
from ccnet.contract.files import write_atomic
from ccnet.contract.spec import HALO, SIZE_MULTIPLE, camera_response

MANIFEST_NAME = "manifest.json"
MANIFEST_KEY = "ccnet.manifest"
"""File beside the artifacts, and ONNX metadata key, that hold the manifest."""

NATIVE_FORMAT = "onnx-native"
"""Format of graphs with the package's compiled operators (``ccnet/csrc/onnxruntime``)."""

NATIVE_DOMAIN = "ccnet"
"""Those operators' domain."""

ONNX_FORMATS = ("onnx", NATIVE_FORMAT)
"""Formats that ONNX Runtime runs."""

PRECISION_KEY = "ccnet.precision"
"""ONNX metadata key: JSON, ``types``: type → how many nodes give it; ``islands``: part of a mixed graph that stays FP32
→ [how many nodes, why].
"""


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
        with prefix_errors(path):
            return cls.from_json(path.read_bytes())
