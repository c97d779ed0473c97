"""A bundle contains exactly the files of its folder, and a device without torch runs it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import MANIFEST_NAME, Artifact, CCNetError, Manifest, sha256, write_atomic
from ccnet.export import device
from ccnet.export.bundle import make_bundle, unpack
from ccnet.export.reference import GOLDEN, Reference, by_torch
from ccnet.model import CCNet

Artifacts = tuple[CCNet, Path]
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def reference(artifacts: Artifacts) -> Reference:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    return by_torch(artifacts[0], frame, "noise")


@pytest.fixture(scope="module")
def bundle(artifacts: Artifacts, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "b.zip"
    make_bundle(artifacts[1], [reference], path)
    return path


def files_of(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_unpacked_bundle_equals_its_folder(artifacts: Artifacts, bundle: Path, tmp_path: Path) -> None:
    manifest = unpack(bundle, tmp_path / "some" / "where")
    assert manifest == Manifest.read(tmp_path / "some" / "where")
    there = {path.name: path.read_bytes() for path in (tmp_path / "some" / "where").glob("[!.]*")}
    assert there.keys() == {MANIFEST_NAME, GOLDEN, *(one.file for one in Manifest.read(artifacts[1]).artifacts)}
    for artifact in Manifest.read(artifacts[1]).artifacts:
        assert there[artifact.file] == (artifacts[1] / artifact.file).read_bytes()


def test_bundle_has_the_predicted_error(artifacts: Artifacts, reference: Reference, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts[1], tmp_path / "folder"))
    (folder / "error.npz").write_bytes(b"a model")
    digest = sha256(folder / "error.npz")
    entry = Artifact(file="error.npz", kind="error", format="npz", precision="fp32", sha256=digest)
    Manifest.read(folder).with_artifact(entry).write(folder)
    make_bundle(folder, [reference], tmp_path / "b.zip")
    assert entry in unpack(tmp_path / "b.zip", tmp_path / "device").artifacts
    assert (tmp_path / "device" / "error.npz").read_bytes() == b"a model"


def test_unpacking_keeps_engines_of_the_same_graphs(bundle: Path, tmp_path: Path) -> None:
    engine = tmp_path / "decode.fp16.tensorrt.engine"
    manifest = unpack(bundle, tmp_path)
    engine.write_bytes(b"an engine")
    entry = Artifact(file=engine.name, kind="decode", format="tensorrt", precision="fp16", sha256=sha256(engine))
    built = replace(manifest, artifacts=(*manifest.artifacts, entry))
    write_atomic(tmp_path / MANIFEST_NAME, built.to_json().encode())
    assert unpack(bundle, tmp_path) == built
    write_atomic(tmp_path / MANIFEST_NAME, replace(built, weights_sha256="0" * 64).to_json().encode())
    assert unpack(bundle, tmp_path) == manifest  # the engine holds other weights


def test_incomplete_folder_is_not_bundled(artifacts: Artifacts, reference: Reference, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts[1], tmp_path / "copy"))
    (folder / "decode.fp16.onnx").write_bytes(b"damaged")
    with pytest.raises(CCNetError, match="SHA-256"):
        make_bundle(folder, [reference], tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def with_manifest(**changed: object) -> Callable[[Files], Files]:
    return lambda files: {**files, MANIFEST_NAME: json.dumps(json.loads(files[MANIFEST_NAME]) | changed).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(MANIFEST_NAME), MANIFEST_NAME),
        (without("full.fp32.onnx"), r"'full\.fp32\.onnx' is in the archive or in its manifest alone"),
        (lambda files: {**files, "../outside": b""}, r"'\.\./outside' is in the archive"),
        (lambda files: {**files, "/etc/passwd": b""}, "'/etc/passwd' is in the archive"),
        (lambda files: {**files, GOLDEN: files[GOLDEN] + b" "}, "not what the manifest vouches for"),
        (with_manifest(artifacts=[]), "alone"),
        (with_manifest(version=7), "version is 7"),
        (with_manifest(context_size=9), "an output is float32"),
    ],
    ids=["no manifest", "a file less", "outside", "absolute", "another hash", "names none", "version", "context"],
)
def test_altered_bundle_is_refused_and_writes_nothing(
    bundle: Path, tmp_path: Path, change: Callable[[Files], Files], words: str
) -> None:
    altered = rezip(tmp_path / "altered.zip", change(files_of(bundle)))
    with pytest.raises(CCNetError, match=words) as error:
        unpack(altered, tmp_path / "out")
    assert str(altered) in str(error.value) or GOLDEN in str(error.value)
    assert not (tmp_path / "out").exists()


def test_hundred_damaged_bundles_are_one_line_each(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written unless the damage lies in unused fields of the zip format."""
    rng, whole = np.random.default_rng(0), bundle.read_bytes()
    expected, damaged = files_of(bundle), tmp_path / "damaged.zip"
    refused = 0
    for _ in range(100):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 8):
            data[at] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(data[: rng.integers(len(data)) if rng.integers(2) else len(data)])
        out = tmp_path / "out"
        code = device.main([str(damaged), str(out)]) if not _same(damaged, expected) else 0
        refused += code == 2
        told = capfd.readouterr()
        assert code == 0 or (code == 2 and told.err.count("\n") == 1 and not out.exists())
    assert refused > 90


def _same(path: Path, expected: Files) -> bool:
    try:
        return files_of(path) == expected
    except Exception:
        return False


def test_device_unpacks_and_checks_once(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert device.main([str(bundle), str(tmp_path / "folder")]) == 0
    told = capfd.readouterr().out
    assert "noise, 48×32 px, against torch" in told
    assert told.count("passes") >= 4 and "FAILS" not in told
    assert device.main([str(bundle), str(tmp_path / "folder")]) == 0
    told = capfd.readouterr().out
    assert "up to date: this check has passed before" in told and "passes" not in told


def test_device_with_wrong_results_fails_the_check(
    artifacts: Artifacts, reference: Reference, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(reference, cube=reference.cube + np.float32(0.01))
    make_bundle(artifacts[1], [wrong], tmp_path / "b.zip")
    assert device.main([str(tmp_path / "b.zip"), str(tmp_path / "folder")]) == 1
    assert "FAILS" in capfd.readouterr().out
