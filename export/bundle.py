"""A bundle: graphs and golden outputs in one file, packed on a desktop and built on a device without torch.

It is a zip archive of plain names: the manifest, and each file that it vouches for by SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ccnet.contract import (
    GRAPH_FORMATS,
    MANIFEST_NAME,
    Artifact,
    ArtifactFolder,
    CCNetError,
    Manifest,
    decode_errors_as,
    prefix_errors,
    write_atomic,
)
from ccnet.runtime.io.artifact_lock import lock_artifacts

from .reference import GOLDEN, Reference, golden, pack

MAX_BYTES = 1 << 30
"""Largest sum of the files in a bundle; the paper's network takes some 50 MB."""


def make_bundle(folder: Path | ArtifactFolder, references: Sequence[Reference], path: Path) -> Manifest:
    """Write a folder's ONNX graphs, predicted error and golden outputs as a bundle.

    Args:
        folder: Artifact folder.
        references: The golden outputs.
        path: File of the bundle.

    Returns:
        The bundle's manifest.

    Raises:
        CCNetError: The folder is not whole.
    """
    folder = ArtifactFolder.open(folder)
    manifest = folder.manifest
    outputs = pack(references)
    kept = [artifact for artifact in manifest.artifacts if artifact.is_exported]
    artifacts = (*kept, _golden_entry(outputs))
    files = [*(folder.read(artifact) for artifact in kept), outputs]
    bundled = dataclasses.replace(manifest, artifacts=artifacts)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(MANIFEST_NAME, bundled.to_json())
        for artifact, data in zip(artifacts, files, strict=True):
            file.writestr(artifact.file, data)
    write_atomic(path, archive.getvalue())
    return bundled


def unpack(path: Path, folder: Path) -> Manifest:
    """Unpack a bundle into a folder; engines of the same graphs that are there stay.

    Args:
        path: File of the bundle.
        folder: Where its files go, once every file is what the bundle's manifest vouches for.

    Returns:
        The folder's manifest.

    Raises:
        CCNetError: The file is no bundle, is damaged, or holds more or less than it says; nothing is written then.
    """
    with (
        decode_errors_as(path, "a bundle from 'ccnet bundle'"),
        prefix_errors(path),
        zipfile.ZipFile(path) as archive,
    ):
        manifest, files = _contents(archive)
        golden(files.get(GOLDEN, b""), manifest)
    with lock_artifacts(folder, say=print):
        for name, data in files.items():
            write_atomic(folder / name, data)
        manifest = dataclasses.replace(manifest, artifacts=(*manifest.artifacts, *_kept_engines(folder, manifest)))
        manifest.write(folder)
    return manifest


def _contents(archive: zipfile.ZipFile) -> tuple[Manifest, dict[str, bytes]]:
    """Return manifest and files of an archive that holds exactly what its manifest vouches for."""
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


def _golden_entry(data: bytes) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(file=GOLDEN, kind="golden", format="npz", precision="fp32", sha256=digest)


def _kept_engines(folder: Path, manifest: Manifest) -> list[Artifact]:
    """Return the engines that the folder has of this very export, which need not be built again."""
    try:
        old = Manifest.read(folder)
    except CCNetError:
        return []  # nothing was there, or nothing worth keeping
    if old.fingerprint != manifest.fingerprint or old.weights_sha256 != manifest.weights_sha256:
        return []
    return [artifact for artifact in old.artifacts if artifact.format not in (*GRAPH_FORMATS, "npz")]
