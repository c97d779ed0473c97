"""The manifest of an artifact folder: the files, their hashes, and what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ccnet.contract.errors import CCNetError, NoManifestError, prefix_errors
from ccnet.contract.files import write_atomic
from ccnet.contract.spec import HALO, SIZE_MULTIPLE, camera_response

MANIFEST_NAME = "manifest.json"
"""File beside the artifacts that holds the manifest."""

MANIFEST_KEY = "ccnet.manifest"
"""ONNX metadata key of a copy of the manifest without its list of files."""

NATIVE_FORMAT = "onnx-native"
"""Format of graphs that use the package's compiled operators (``ccnet/csrc/onnxruntime``)."""

NATIVE_DOMAIN = "ccnet"
"""ONNX domain of the compiled operators."""

PLUGIN_FORMAT = "onnx-plugin"
"""Format of graphs with nodes of TensorRT's plugin (``runtime/backends/trt_plugin.py``); ONNX Runtime runs none."""

ONNX_FORMATS = ("onnx", NATIVE_FORMAT)
"""Formats that ONNX Runtime runs."""

GRAPH_FORMATS = (*ONNX_FORMATS, PLUGIN_FORMAT)
"""Formats of graphs; an engine's is the library that it is for."""

PRECISION_KEY = "ccnet.precision"
"""ONNX metadata key of a JSON object with two entries.

``types``: output type → number of nodes. ``islands``: group of FP32-kept nodes of a mixed graph → [number, reason].
"""

MANIFEST_VERSION = 1

_FINGERPRINT_KEY = "inputs"
"""JSON key of ``Manifest.fingerprint``, as version 0.1.0 wrote it."""


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a CCNetError that names a file of the manifest.

    Args:
        path: The file.

    Yields:
        Nothing.

    Raises:
        CCNetError: The file cannot be read.
    """
    try:
        yield
    except OSError as error:
        why = f"cannot be read ({error.strerror}), the manifest names it"
        raise CCNetError(f"{path}: {why}: export again") from error


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The manifest's entry of one file: a graph, an engine or golden outputs.

    Attributes:
        file: Name inside the folder.
        kind: ``encode`` (rgb → context), ``decode`` (rgb, context → cube), ``full`` (rgb → cube), ``golden`` (frames
            and the outputs of the network for them), or ``error`` (see ``ccnet.metrics.predicted_error``).
        format: ``onnx``, ``onnx-native`` (uses the package's compiled operators), ``onnx-plugin``, ``npz``, or the
            library that the engine is for (``tensorrt``, ``tensorrt_rtx``).
        precision: ``fp32``, ``fp16`` (mixed: FP16 with FP32-kept nodes) or ``int8`` (Q/DQ convolutions, the rest
            mixed).
        sha256: Hash of the file, as hex digits.
        details: Facts that depend on the format, such as an engine's version and GPU.
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
        if self.kind not in ("encode", "decode", "full", "golden", "error"):
            raise CCNetError(f"artifact kind is {self.kind!r}, expected encode, decode, full, golden or error")
        if self.file in ("", "..") or Path(self.file).name != self.file:
            raise CCNetError(f"artifact file is {self.file!r}, expected a plain name inside the artifact's folder")

    @property
    def is_exported(self) -> bool:
        """True for what ``ccnet export`` writes: graphs, and the predicted error of the weights."""
        return self.format in GRAPH_FORMATS or self.kind == "error"

    def read(self, folder: Path) -> bytes:
        """Read the file and verify it: a CCNetError unless it is there and its SHA-256 is the manifest's.

        ``ArtifactFolder.read`` does the same without hashing a file twice.

        Args:
            folder: The artifact folder.

        Returns:
            The content of the file.
        """
        path = folder / self.file
        with read_errors(path):
            data = path.read_bytes()
        self.check_hash(path, hashlib.sha256(data).hexdigest())
        return data

    def check_hash(self, path: Path, digest: str) -> None:
        """Raise a CCNetError that names ``path`` unless ``digest`` is the manifest's SHA-256 of this file."""
        if digest != self.sha256:
            why = "SHA-256 is not the manifest's, the file is damaged or of another export"
            raise CCNetError(f"{path}: {why}: export again")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files of an artifact folder and what they were made from.

    Attributes:
        config: Configuration of the network.
        weights_sha256: Hash of the weights.
        context_size: Number of values in a context.
        input: ``float32`` (rgb is (1, 3, H, W) in [0, 1]) or ``uint8`` (rgb is (1, H, W, 3)).
        tools: Package → version that exported the files.
        artifacts: Entries of the files.
        size_multiple: Height and width of every input are multiples of it, px.
        halo: Border that a tile needs on each side, px.
        camera: The camera whose frames the weights were trained for, see ``camera_response``; None if it is unknown or
            more than one.
        fingerprint: Hash of everything that the export depends on, tools and code included; empty if unknown. Its JSON
            key is ``inputs``.
        version: Version of the manifest's format.
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
    fingerprint: str = ""
    version: int = MANIFEST_VERSION

    def find(self, kind: str, *, format: str = "onnx", precision: str = "fp32") -> Artifact:
        """Return the artifact of this kind, format and precision; CCNetError names those that exist."""
        for artifact in self.artifacts:
            if (artifact.kind, artifact.format, artifact.precision) == (kind, format, precision):
                return artifact
        have = ", ".join(sorted({f"{a.kind} {a.format} {a.precision}" for a in self.artifacts})) or "none"
        raise CCNetError(f"no {kind} artifact of format {format} and precision {precision}; there are: {have}")

    def with_artifact(self, artifact: Artifact) -> Manifest:
        """Return this manifest with an artifact added, or with the entry of the same file replaced."""
        return replace(self, artifacts=(*self.without_artifact(artifact).artifacts, artifact))

    def without_artifact(self, artifact: Artifact) -> Manifest:
        """Return this manifest without the entry of the same file."""
        return replace(self, artifacts=tuple(entry for entry in self.artifacts if entry.file != artifact.file))

    def write(self, folder: Path) -> None:
        """Write the manifest into its folder. Write it last: it vouches for the other files."""
        write_atomic(folder / MANIFEST_NAME, self.to_json().encode())

    def to_json(self) -> str:
        """Return the manifest as JSON, with sorted keys."""
        values = asdict(self)
        values[_FINGERPRINT_KEY] = values.pop("fingerprint")
        return json.dumps(values, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse and check a manifest.

        Args:
            text: JSON, as ``to_json`` or version 0.1.0 wrote it.

        Returns:
            The manifest.

        Raises:
            CCNetError: The text is not a manifest of this version; the message says why.
        """
        try:
            raw = json.loads(text)
            version = raw.get("version")
            if version != MANIFEST_VERSION:
                raise CCNetError(
                    f"manifest version is {version!r}, expected {MANIFEST_VERSION}: export again with this ccnet"
                )
            artifacts = tuple(Artifact(**entry) for entry in raw.pop("artifacts"))
            fingerprint = raw.pop(_FINGERPRINT_KEY, "")
            manifest = cls(**raw, artifacts=artifacts, fingerprint=fingerprint)
        except CCNetError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]  # it may quote the file
            raise CCNetError(f"not a ccnet manifest ({why}): export again") from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        for name in ("context_size", "size_multiple", "halo"):
            value = getattr(self, name)
            if type(value) is not int or value <= 0:
                raise CCNetError(f"manifest {name} is {value!r}, expected a positive integer: export again")
        types: dict[str, type] = {"config": dict, "tools": dict, "weights_sha256": str, "fingerprint": str}
        for name, kind in types.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                key = _FINGERPRINT_KEY if name == "fingerprint" else name
                raise CCNetError(f"manifest {key} is {value!r}, expected a {kind.__name__}: export again")
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
        """Read and check the manifest of an artifact folder.

        Args:
            folder: The folder.

        Returns:
            The manifest.

        Raises:
            NoManifestError: There is no manifest.
            CCNetError: The manifest is not one of this version.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise NoManifestError(
                f"{folder}: no {MANIFEST_NAME}; expected a folder made by 'ccnet export'; make it, or name another"
            )
        with prefix_errors(path):
            return cls.from_json(path.read_bytes())
