"""``ccnet export``, ``build`` and ``check`` as a user types them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skimage.data
from onnx import numpy_helper
from PIL import Image

from ccnet.contract import HALO, MANIFEST_NAME, SIZE_MULTIPLE, Artifact, ArtifactFolder, Manifest, sha256
from ccnet.data.camera import Camera
from ccnet.export import artifacts as module
from ccnet.metrics.predicted_error import FEATURES, ErrorModel, error_file
from ccnet.model import CCNet
from ccnet.model.checkpoint import save_checkpoint, weights_hash
from ccnet.runtime import read_cube
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import operators

TILE = 2 * HALO + SIZE_MULTIPLE  # the smallest

Artifacts = tuple[CCNet, Path]


Ccnet = Callable[..., Any]
Result = Any


@pytest.fixture
def weights(artifacts: Artifacts, tmp_path: Path) -> Path:
    """The weights that the tiny folder was exported from."""
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, artifacts[0])
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Return a picture of 80×240 px, which needs two tiles."""
    path = tmp_path / "photo.png"
    Image.fromarray(skimage.data.coffee()[100:180, 100:340]).save(path)
    return path


@pytest.fixture
def copy(artifacts: Artifacts, tmp_path: Path) -> Path:
    """Return a copy of the artifact folder that the test may change."""
    return Path(shutil.copytree(artifacts[1], tmp_path / "copy"))


def refused(result: Result, *words: str) -> None:
    """Check for exit code 2, one error line with all the words, and no other output."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert all(word in result.err for word in words), result.err


def test_check_reports_that_all_passes(ccnet: Ccnet, artifacts: Artifacts, weights: Path, photo: Path) -> None:
    result = ccnet("check", artifacts[1], "--frames", photo, "--weights", weights, "--tile", TILE)
    assert result.code == 0, result.err
    assert "240×80 px" in result.out
    for row in ("full fp32", "decode fp32", f"decode fp32, {TILE} px tiles", f"decode fp16, {TILE} px tiles"):
        assert row in result.out
    assert result.out.count("passes") == (8 if operators() else 5)
    assert "reported" in result.out
    assert "FAILS" not in result.out


def test_check_prints_json(ccnet: Ccnet, artifacts: Artifacts, weights: Path, photo: Path) -> None:
    result = ccnet("check", artifacts[1], "-f", photo.parent, "-w", weights, "--tile", TILE, "--json")
    assert result.code == 0, result.err
    ((path, rows),) = json.loads(result.out).items()
    assert path == photo.name
    judged = {row["tolerance"]: row["parity"]["max_abs"] for row in rows if row["tolerance"]}
    assert judged.keys() == {"fp32", "tiled", "fp16"}
    assert 0 < judged["tiled"] <= 1e-5, "the tiled run had a single tile, and shows nothing"
    assert all(row["broken"] == [] for row in rows)
    assert any(row["tolerance"] is None and row["parity"]["max_abs"] > 0 for row in rows)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often a manifest is read and the SHA-256 of each file compared."""
    counts: Counter[str] = Counter()
    read, check_hash = Manifest.read, Artifact.check_hash
    monkeypatch.setattr(Manifest, "read", lambda path: (counts.update(["manifest"]), read(path))[1])
    monkeypatch.setattr(
        Artifact, "check_hash", lambda self, path, digest: (counts.update([self.file]), check_hash(self, path, digest))
    )
    return counts


def test_check_writes_cubes_and_picture_and_reads_each_file_once(
    ccnet: Ccnet, artifacts: Artifacts, weights: Path, photo: Path, tmp_path: Path, reads: Counter[str]
) -> None:
    out = tmp_path / "out"
    assert ccnet("check", artifacts[1], "-f", photo, "-w", weights, "--tile", TILE, "--out", out).code == 0
    assert reads == Counter(["manifest", *(path.name for path in artifacts[1].iterdir() if path.suffix == ".onnx")])
    names = {"check.json", "photo.mat", "photo.hdr", "photo.img", "photo.png", "photo-worst.png"}
    assert {path.name for path in out.iterdir()} == names
    mat, envi = (read_cube(out / f"photo{suffix}") for suffix in (".mat", ".hdr"))
    assert np.array_equal(mat, envi)
    assert mat.shape == (31, 80, 240)


@pytest.mark.parametrize("name", ["full.fp32.onnx", "decode.fp32.onnx", "decode.fp32.native.onnx", "decode.fp16.onnx"])
def test_check_fails_where_a_graph_computes_another_result(
    ccnet: Ccnet, copy: Path, weights: Path, photo: Path, name: str
) -> None:
    """The folder agrees with its manifest, but one graph has other weights."""
    if not (copy / name).is_file():
        pytest.skip("the kernels are not compiled here: no C compiler")
    model = onnx.load(copy / name)
    kernel = next(one for one in model.graph.initializer if one.dims == [31, 32, 3, 3])
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * kernel_error(name), kernel.name))
    onnx.save(model, copy / name)
    manifest = Manifest.read(copy)
    stamped = tuple(replace(one, sha256=sha256(copy / one.file)) for one in manifest.artifacts)
    (copy / MANIFEST_NAME).write_text(replace(manifest, artifacts=stamped).to_json())
    result = ccnet("check", copy, "-f", photo, "-w", weights, "--tile", TILE)
    assert result.code == 1
    assert "FAILS" in result.out
    kind, precision = name.split(".")[:2]
    assert f"parity fails\n{photo.name}: {kind} {precision}" in result.err


def kernel_error(name: str) -> Any:
    """Return the smallest factor that the check must detect, in the graph's type."""
    return np.float16(1.01) if "fp16" in name else np.float32(1.001)


def test_other_weights_are_refused(ccnet: Ccnet, artifacts: Artifacts, network: CCNet, photo: Path) -> None:
    other = photo.with_name("other.safetensors")
    network.conv_in.weight.data.mul_(1.1)
    save_checkpoint(other, network)
    refused(
        ccnet("check", artifacts[1], "-f", photo, "-w", other, "--json"), "exported from other weights", "--weights"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no frames, and no golden outputs", "--frames"]),
        (["-f", "empty"], ["empty", "holds no frame"]),
        (["-f", "none.png"], ["none.png"]),
        (["-f", "empty", "-w", "none.safetensors"], ["empty"]),
    ],
    ids=["no frame", "an empty folder", "a missing frame", "a folder before the weights"],
)
def test_check_without_readable_frames_is_refused(
    ccnet: Ccnet,
    artifacts: Artifacts,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("empty").mkdir()
    refused(ccnet("check", artifacts[1], "--json", "-w", weights, *arguments), *words)


@pytest.mark.parametrize("command", ["check", "build"])
def test_missing_folder_is_refused(ccnet: Ccnet, photo: Path, command: str, tmp_path: Path) -> None:
    frames = ["-f", photo] if command == "check" else []
    refused(ccnet(command, tmp_path / "none", *frames), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_build_leaves_no_lock_in_a_folder_without_a_manifest(ccnet: Ccnet, tmp_path: Path) -> None:
    refused(ccnet("build", tmp_path, "--backend", "tensorrt-rtx"), "no manifest.json")
    assert not list(tmp_path.iterdir())


def test_export_passes_its_options_on(
    ccnet: Ccnet, artifacts: Artifacts, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export is replaced by a copy of the ``artifacts`` fixture."""
    asked: dict[str, Any] = {}

    def export(model: CCNet, folder: Path, **options: Any) -> Manifest:
        asked.update(options, config=model.config)
        shutil.copytree(artifacts[1], folder, dirs_exist_ok=True)
        return Manifest.read(folder)

    monkeypatch.setattr(module, "export", export)
    camera = Camera(name="flat", response=np.full((31, 3), 1 / 31, np.float32))
    save_checkpoint(weights, artifacts[0], camera=camera.to_entry())
    result = ccnet("export", tmp_path / "new", "--weights", weights, "--input", "uint8")
    assert result.code == 0, result.err
    assert asked["camera"]["name"] == "flat"
    assert (asked["config"], asked["input"]) == (artifacts[0].config, "uint8")
    assert all(artifact.file in result.out for artifact in Manifest.read(tmp_path / "new").artifacts)


def test_export_takes_the_predicted_error_beside_the_weights(
    ccnet: Ccnet, artifacts: Artifacts, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(model: CCNet, folder: Path, *, fingerprint: str, error: bytes | None, **options: Any) -> Manifest:
        shutil.copytree(artifacts[1], folder, dirs_exist_ok=True)
        manifest = replace(Manifest.read(folder), fingerprint=fingerprint)
        if error is not None:
            manifest = manifest.with_artifact(module._write_error(folder, error))
        manifest.write(folder)
        return manifest

    monkeypatch.setattr(module, "export", export)
    zeros = np.zeros(FEATURES, np.float32)
    layers, coefficients = (np.zeros((31, 3), np.float32),), np.zeros((1 + FEATURES, 31), np.float32)
    foreign = ErrorModel(
        pixel_layers=layers, mean=zeros, spread=zeros + 1, coefficients=coefficients, weights_sha256="5a" * 32
    )
    error_file(weights).write_bytes(foreign.to_bytes())
    result = ccnet("export", tmp_path / "foreign", "--weights", weights)
    assert result.code == 0 and "of other weights, left out" in result.err
    assert not (tmp_path / "foreign" / "error.npz").exists()

    own = replace(foreign, weights_sha256=weights_hash(artifacts[0]))
    error_file(weights).write_bytes(own.to_bytes())
    assert ccnet("export", tmp_path / "own", "--weights", weights).code == 0
    folder = ArtifactFolder.open(tmp_path / "own")
    (entry,) = [artifact for artifact in folder.manifest.artifacts if artifact.kind == "error"]
    assert folder.read(entry) == own.to_bytes()
    assert "up to date" in ccnet("export", tmp_path / "own", "--weights", weights).err
    (tmp_path / "own" / "error.npz").unlink()
    assert "exported in" in ccnet("export", tmp_path / "own", "--weights", weights).err
    assert ArtifactFolder.open(tmp_path / "own").is_intact()

    error_file(weights).write_bytes(b"damaged")
    for _ in range(2):  # a folder that the first run leaves must not pass for up to date
        refused(ccnet("export", tmp_path / "damaged", "--weights", weights), "tiny.error.npz: ", "ccnet fit-error")


def test_export_refuses_invalid_arguments_first(ccnet: Ccnet, weights: Path) -> None:
    refused(ccnet("export", weights / "below", "-w", weights), "below", "cannot be made")
    refused(ccnet("export", "new", "-w", "none.safetensors"), "none.safetensors", "cannot be read")
    refused(ccnet("export", "new", "-w", weights, "--input", "float16"), "float16")


def test_build_for_onnxruntime_builds_nothing(ccnet: Ccnet, copy: Path) -> None:
    before = sorted(copy.iterdir())
    result = ccnet("build", copy, "--backend", "onnxruntime")
    assert result.code == 0
    assert "no engine built: ONNX Runtime was asked for" in result.err
    assert sorted(copy.iterdir()) == before


@pytest.mark.parametrize("tile", [100, 2 * HALO])
def test_build_refuses_a_tile_off_the_grid_or_within_the_halos(ccnet: Ccnet, copy: Path, tile: int) -> None:
    result = ccnet("build", copy, "--backend", "tensorrt-rtx", "--tile", tile)
    refused(result, f"tile is {tile} px", "multiple of 16")


@pytest.mark.skipif("tensorrt" in trt.available(), reason="TensorRT is installed")
def test_build_never_replaces_the_requested_backend(ccnet: Ccnet, copy: Path) -> None:
    refused(ccnet("build", copy, "--backend", "tensorrt"), "tensorrt is not installed", "pip install")


@pytest.mark.skipif("tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("kind", ["encode.fp32.onnx", "decode.fp16.onnx"])
def test_build_refuses_a_graph_with_another_hash(ccnet: Ccnet, copy: Path, kind: str) -> None:
    (copy / kind).write_bytes((copy / "full.fp32.onnx").read_bytes())
    refused(ccnet("build", copy, "--backend", "tensorrt-rtx"), kind, "SHA-256")
    assert not list(copy.glob(kind.replace(".onnx", ".*.engine")))
