"""An artifact folder: the manifest is read once, a file is hashed once, and a changed file is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ccnet.contract import MANIFEST_NAME, Artifact, ArtifactFolder, CCNetError, Manifest

CONTENT = {"encode": b"an encoder", "decode": b"a decoder"}


def entry(kind: str, data: bytes) -> Artifact:
    digest = hashlib.sha256(data).hexdigest()
    return Artifact(file=f"{kind}.onnx", kind=kind, format="onnx", precision="fp32", sha256=digest)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for kind, data in CONTENT.items():
        (tmp_path / f"{kind}.onnx").write_bytes(data)
    artifacts = tuple(entry(kind, data) for kind, data in CONTENT.items())
    manifest = Manifest(config={}, weights_sha256="", context_size=3, input="float32", tools={}, artifacts=artifacts)
    manifest.write(tmp_path)
    return tmp_path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The contents that were hashed, or nothing for a file that was hashed block by block."""
    real, contents = hashlib.sha256, list[object]()
    monkeypatch.setattr(hashlib, "sha256", lambda *content: (contents.append(content), real(*content))[1])
    return contents


def test_open_accepts_a_path_or_an_open_folder(path: Path) -> None:
    folder = ArtifactFolder.open(path)
    assert ArtifactFolder.open(folder) is folder
    assert (folder.path, folder.manifest) == (path, Manifest.read(path))
    assert ArtifactFolder.open(str(path)).path == path


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match=r"no manifest\.json"):
        ArtifactFolder.open(tmp_path)


def test_find_names_the_folder(path: Path) -> None:
    folder = ArtifactFolder.open(path)
    assert folder.find("encode") is folder.manifest.artifacts[0]
    with pytest.raises(CCNetError, match=f"^{path}: no full artifact"):
        folder.find("full")


def test_file_is_hashed_once(path: Path, hashed: list[object]) -> None:
    folder = ArtifactFolder.open(path)
    encode, decode = folder.find("encode"), folder.find("decode")
    for _ in range(3):
        assert folder.read(encode) == CONTENT["encode"]
        folder.verify(encode)
        folder.verify(decode)
        assert folder.read(decode) == CONTENT["decode"]
        assert folder.is_intact()
    assert hashed == [(CONTENT["encode"],), ()]


@pytest.mark.parametrize("size_stays", [True, False])
def test_changed_file_is_hashed_again_and_refused(path: Path, size_stays: bool) -> None:
    folder = ArtifactFolder.open(path)
    encode = folder.find("encode")
    assert folder.is_intact()
    before = (path / encode.file).stat()
    (path / encode.file).write_bytes(b"AN ENCODER" if size_stays else b"an encoder and more")
    os.utime(path / encode.file, ns=(before.st_atime_ns, before.st_mtime_ns + size_stays))
    for call in (folder.read, folder.verify):
        with pytest.raises(CCNetError, match=rf"{encode.file}: SHA-256 is not the manifest's"):
            call(encode)
    assert not folder.is_intact()
    assert folder.is_intact([folder.find("decode")])


def test_another_entry_of_the_same_file_is_verified_by_its_own_hash(path: Path) -> None:
    folder = ArtifactFolder.open(path)
    folder.verify(folder.find("encode"))
    with pytest.raises(CCNetError, match="SHA-256"):
        folder.read(entry("encode", b"another encoder"))


def test_missing_file_is_refused(path: Path) -> None:
    folder = ArtifactFolder.open(path)
    (path / "encode.onnx").unlink()
    for call in (folder.read, folder.verify):
        with pytest.raises(CCNetError, match=r"encode\.onnx: cannot be read .* export again"):
            call(folder.find("encode"))


def test_file_is_added_to_the_manifest_on_disk(path: Path) -> None:
    folder = ArtifactFolder.open(path)
    (path / "full.onnx").write_bytes(b"both")
    folder.add(entry("full", b"both"))
    assert folder.read(folder.find("full")) == b"both"
    assert Manifest.read(path) == folder.manifest
    assert (path / MANIFEST_NAME).is_file()
