"""A file of an artifact folder, checked against its manifest and loaded; what sizes it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ccnet.contract import MANIFEST_KEY, Artifact, CCNetError, Manifest, prefix_errors
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import Backend, Selection


@dataclass(frozen=True)
class SizeLimits:
    """Shortest and longest side, px, that a file's graph takes."""

    least: int
    most: int

    @classmethod
    def of(cls, artifact: Artifact, multiple: int) -> SizeLimits:
        """ONNX takes all sizes; an engine takes those of its ``details["window"]``."""
        bounds = artifact.details.get("window", [multiple, 1 << 30])
        try:
            least, most = map(int, bounds)
        except (TypeError, ValueError):
            least = most = 0
        if not 0 < least <= most or least % multiple or most % multiple:
            raise CCNetError(f"{artifact.file}: window is {bounds!r}, expected [least, most] px: build it again")
        return cls(least, most)


def open_backend(
    folder: Path, manifest: Manifest, selection: Selection, artifact: Artifact, threads: int | None
) -> Backend:
    """The artifact's backend, the caller's to close; CCNetError if the file, or an ONNX's own manifest, differs."""
    data = artifact.read(folder)
    with prefix_errors(folder / artifact.file):
        backend = selection.open(artifact, data, folder, manifest, threads)
        if isinstance(backend, OnnxRuntimeBackend):
            _check_manifest(backend, manifest)
    return backend


def _check_manifest(backend: OnnxRuntimeBackend, folder: Manifest) -> None:
    if MANIFEST_KEY not in backend.metadata:
        raise CCNetError("an ONNX model without ccnet's manifest, expected one made by 'ccnet export'")
    inside = Manifest.from_json(backend.metadata[MANIFEST_KEY])
    # Tools may differ: a folder can gain engines, and the graphs can be copied from machine to machine
    if replace(inside, artifacts=(), tools={}) != replace(folder, artifacts=(), tools={}):
        raise CCNetError("manifest mismatch: the file and its folder are of different exports; export again")
