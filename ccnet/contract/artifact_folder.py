"""One artifact folder, opened once: its path, its checked manifest, and its files with verified content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ccnet.contract.errors import CCNetError, prefix_errors
from ccnet.contract.files import sha256
from ccnet.contract.manifest import Artifact, Manifest, read_errors

FileState = tuple[int, int, int, int]
"""Inode, size in bytes, and times of the last change of content and of status in ns: equal while a file is the same."""


class ArtifactFolder:
    """The manifest and the files of a folder that ``ccnet export`` wrote. Open it once and hand it along.

    The manifest is read and checked when the folder is opened. The SHA-256 of a file is computed when the file is
    first needed, and again only after the file has changed.

    Attributes:
        path: Where the folder is.
        manifest: The entries of the files, and what they were made from.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._verified: dict[str, tuple[FileState, str]] = {}

    @classmethod
    def open(cls, folder: str | Path | ArtifactFolder) -> ArtifactFolder:
        """Read and check the manifest of a folder; a folder that is open already is returned as it is.

        A CCNetError says so if there is no manifest, or if it is not one of this version.

        Args:
            folder: Path of the folder, or the open folder.

        Returns:
            The open folder.
        """
        if isinstance(folder, ArtifactFolder):
            return folder
        return cls(Path(folder), Manifest.read(Path(folder)))

    def find(self, kind: str, *, format: str = "onnx", precision: str = "fp32") -> Artifact:
        """Return the artifact of this kind, format and precision; CCNetError names those that exist."""
        with prefix_errors(self.path):
            return self.manifest.find(kind, format=format, precision=precision)

    def read(self, artifact: Artifact) -> bytes:
        """Read a file and verify it: a CCNetError unless it is there and its SHA-256 is the manifest's.

        Args:
            artifact: Entry of the file.

        Returns:
            The content of the file.
        """
        path = self.path / artifact.file
        with read_errors(path), path.open("rb") as file:
            state, data = _state(os.fstat(file.fileno())), file.read()
        if not self._is_verified(artifact, state):
            self._verify_hash(artifact, state, hashlib.sha256(data).hexdigest())
        return data

    def verify(self, artifact: Artifact) -> None:
        """Verify a file without keeping its content: a CCNetError as ``read`` would raise it."""
        path = self.path / artifact.file
        with read_errors(path):
            state = _state(path.stat())
            if not self._is_verified(artifact, state):
                self._verify_hash(artifact, state, sha256(path))

    def is_intact(self, artifacts: Iterable[Artifact] | None = None) -> bool:
        """Return whether these files, or all files if None, are those that the manifest describes."""
        try:
            for artifact in self.manifest.artifacts if artifacts is None else artifacts:
                self.verify(artifact)
        except CCNetError:
            return False
        return True

    def add(self, artifact: Artifact) -> None:
        """Enter a file of the folder into the manifest, in place of an older entry, and write the manifest."""
        manifest = self.manifest.with_artifact(artifact)
        manifest.write(self.path)
        self.manifest = manifest

    def remove(self, artifact: Artifact) -> None:
        """Take a file out of the manifest, write the manifest, and delete the file."""
        manifest = self.manifest.without_artifact(artifact)
        manifest.write(self.path)
        self.manifest = manifest
        (self.path / artifact.file).unlink(missing_ok=True)

    def _is_verified(self, artifact: Artifact, state: FileState) -> bool:
        return self._verified.get(artifact.file) == (state, artifact.sha256)

    def _verify_hash(self, artifact: Artifact, state: FileState, digest: str) -> None:
        artifact.check_hash(self.path / artifact.file, digest)
        self._verified[artifact.file] = state, digest


def _state(status: os.stat_result) -> FileState:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
