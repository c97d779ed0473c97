"""A folder of graphs with golden outputs in one file, for machines without torch: made on a desktop, built on a camera.

A bundle is a zip archive of plain names: the manifest, and each file that it vouches for by SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ccnet.contract import (
    MANIFEST_NAME,
    ONNX_FORMATS,
    Artifact,
    CCNetError,
    Manifest,
    decode_errors_as,
    make_folder,
    prefix_errors,
    write_atomic,
)

from .reference import GOLDEN, Reference, golden, pack

MAX_BYTES = 1 << 30
"""Of all that a bundle may hold; the paper's network takes some 50 MB."""


def make_bundle(folder: Path, references: Sequence[Reference], path: Path) -> Manifest:
    """Write a folder's ONNX graphs and golden outputs; returns the bundle's manifest.

    CCNetError for a folder that is not whole.
    """
    manifest = Manifest.read(folder)
    outputs = pack(references)
    artifacts = (*(one for one in manifest.artifacts if one.format in ONNX_FORMATS), _golden(outputs))
    files = [outputs if one.file == GOLDEN else one.read(folder) for one in artifacts]
    bundled = dataclasses.replace(manifest, artifacts=artifacts)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MANIFEST_NAME, bundled.to_json())
        for artifact, data in zip(artifacts, files, strict=True):
            file.writestr(artifact.file, data)
    write_atomic(path, archive.getvalue())
    return bundled


def unpack(path: Path, folder: Path) -> Manifest:
    """Into a folder, once every file is what the bundle's manifest vouches for; engines of the same graphs stay.

    CCNetError, and nothing written, for a file that is no bundle, is damaged, or holds more or less than it says.
    """
    with (
        decode_errors_as(path, "a bundle made by 'ccnet bundle'"),
        prefix_errors(path),
        zipfile.ZipFile(path) as archive,
    ):
        manifest, files = _contents(archive)
        golden(files.get(GOLDEN, b""), manifest)
    make_folder(folder)
    for name, data in files.items():
        write_atomic(folder / name, data)
    manifest = dataclasses.replace(manifest, artifacts=(*manifest.artifacts, *_engines(folder, manifest)))
    manifest.write(folder)
    return manifest


def _contents(archive: zipfile.ZipFile) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of an archive that holds what its manifest names, as it was, and nothing else."""
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    if len(sizes) != len(archive.infolist()) or sum(sizes.values()) > MAX_BYTES:
        raise CCNetError(f"repeats a file or is larger than {MAX_BYTES >> 20} MiB, expected a ccnet bundle")
    manifest = Manifest.from_json(archive.read(MANIFEST_NAME))
    expected = {artifact.file: artifact.sha256 for artifact in manifest.artifacts}
    if sizes.keys() != {MANIFEST_NAME, *expected}:
        odd = min(sizes.keys() ^ {MANIFEST_NAME, *expected})
        raise CCNetError(f"{odd!r} is in the archive or in its manifest alone, expected both: copy it again")
    files = {name: archive.read(name) for name in expected}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != expected[name]:
            raise CCNetError(f"{name} is not what the manifest vouches for: copy the bundle again")
    return manifest, files


def _golden(data: bytes) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(file=GOLDEN, kind="golden", format="npz", precision="fp32", sha256=digest)


def _engines(folder: Path, manifest: Manifest) -> list[Artifact]:
    """Those that the folder has of this very export, which need not be built again."""
    try:
        old = Manifest.read(folder)
    except CCNetError:
        return []  # nothing was there, or nothing worth keeping
    if old.fingerprint != manifest.fingerprint or old.weights_sha256 != manifest.weights_sha256:
        return []
    return [artifact for artifact in old.artifacts if artifact.format not in (*ONNX_FORMATS, "npz")]
