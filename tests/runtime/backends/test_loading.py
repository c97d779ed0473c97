"""Folders and files that are refused when they are opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from ccnet.contract import MANIFEST_KEY, ArtifactFolder
from ccnet.runtime.backends.loading import LazyBackend
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.tiles.host_path import HostPath
from tests.runtime.conftest import (
    artifact,
    manifest,
    model,
    open_camera,
    pixels,
    refusal,
    write,
)

Files = dict[str, bytes]


def test_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    refusal(lambda: open_camera(tmp_path), tmp_path, "no manifest.json")
    refusal(lambda: open_camera(tmp_path / "none"), tmp_path / "none", "no manifest.json")


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_missing_and_changed_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, manifest()) / f"{kind}.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    refusal(lambda: open_camera(tmp_path), path, "SHA-256")
    path.unlink()
    refusal(lambda: open_camera(tmp_path), path, "cannot be read")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", {"width": 4}),
        ("weights_sha256", "cd" * 32),
        ("context_size", 4),
        ("input", "uint8"),
        ("size_multiple", 8),
        ("halo", 32),
    ],
)
def test_file_of_another_export_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    other = model("decode", manifest()).SerializeToString()
    folder = write(tmp_path, manifest(**{field: value}), {"decode": other})
    refusal(lambda: open_camera(folder), folder / "decode.onnx", "manifest mismatch")


def test_other_tool_versions_are_no_mismatch(tmp_path: Path) -> None:
    other = model("decode", manifest(tools={"torch": "2.6"})).SerializeToString()
    open_camera(write(tmp_path, manifest(tools={"torch": "2.7"}), {"decode": other})).close()


def damaged() -> Files:
    whole = model("decode", manifest())
    foreign = model("decode", manifest())
    del foreign.metadata_props[:]
    bad_stamp = model("decode", manifest())
    helper.set_model_props(bad_stamp, {MANIFEST_KEY: "{}"})
    return {
        "as ONNX": whole.SerializeToString()[:-200],
        "No graph": b"",
        "without ccnet's manifest": foreign.SerializeToString(),
        "manifest version": bad_stamp.SerializeToString(),
    }


@pytest.mark.parametrize(("words", "data"), damaged().items(), ids=damaged())
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, words: str, data: bytes) -> None:
    folder = write(tmp_path, manifest(), {"decode": data})
    refusal(lambda: open_camera(folder), folder / "decode.onnx", words)


def test_graphs_of_other_tensors_are_refused(tmp_path: Path) -> None:
    swapped = {kind: model(other, manifest()) for kind, other in (("encode", "decode"), ("decode", "encode"))}
    for kind, made in swapped.items():
        folder = write(tmp_path / kind, manifest(), {kind: made.SerializeToString()})
        with open_camera(folder) as reconstruct:
            refusal(lambda r=reconstruct: r(pixels(16, 16)), "inputs are")  # type: ignore[misc]


def test_manifest_that_is_refused_late_closes_the_backends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[LazyBackend] = []
    monkeypatch.setattr(LazyBackend, "close", lambda self: closed.append(self))
    refusal(lambda: open_camera(folder, encode_pixels=0), "encode_pixels")
    assert len(closed) == 2


@pytest.mark.parametrize("tile", [[64], "64", [64, "x"], [96, 64], [0, 64], [60, 96], None, 64])
def test_invalid_tile_limits_are_refused(folder: Path, tile: object) -> None:
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    odd = dataclasses.replace(artifact("decode"), details={"window": tile})
    opened = ArtifactFolder(Path("folder"), manifest())
    selection = Selection(folder=opened, backend="onnxruntime", encode=artifact("encode"), decode=odd)
    refusal(lambda: HostPath(selection, encoder, decoder), "decode.fp32.onnx: tile limits are")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that were loaded, in order, as the names of their first output."""
    names: list[str] = []
    load = OnnxRuntimeBackend.__init__

    def record(self: OnnxRuntimeBackend, *arguments: Any, **options: Any) -> None:
        load(self, *arguments, **options)
        names.append(self._outputs[0])

    monkeypatch.setattr(OnnxRuntimeBackend, "__init__", record)
    return names


def test_a_graph_loads_when_it_first_runs(folder: Path, loaded: list[str]) -> None:
    with open_camera(folder) as reconstruct:
        assert reconstruct.describe()["backend"].startswith("onnxruntime")
        assert loaded == []
        context = reconstruct.encode(pixels(16, 16))
        assert loaded == ["context"]
        for _ in range(2):
            reconstruct(pixels(16, 16), context)
        assert loaded == ["context", "cube"]


def test_a_closed_reconstructor_loads_nothing(folder: Path, loaded: list[str]) -> None:
    reconstruct = open_camera(folder)
    reconstruct.close()
    refusal(lambda: reconstruct(pixels(16, 16)), "is closed")
    assert loaded == []


def test_what_was_verified_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    """A folder is exported anew, or loses its files, between the opening and the first frame."""
    copy = write(tmp_path, manifest())
    with open_camera(folder) as expected, open_camera(copy) as reconstruct:
        (copy / "encode.onnx").write_bytes(b"another export")
        (copy / "decode.onnx").unlink()
        np.testing.assert_array_equal(reconstruct(pixels(16, 16)), expected(pixels(16, 16)))


def test_damage_that_the_manifest_vouches_for_names_its_file_when_it_is_loaded(tmp_path: Path) -> None:
    broken = model("decode", manifest())
    broken.graph.node[0].op_type = "NoSuchOperator"
    folder = write(tmp_path, manifest(), {"decode": broken.SerializeToString()})
    with open_camera(folder) as reconstruct:
        for _ in range(2):
            refusal(lambda: reconstruct(pixels(16, 16)), folder / "decode.onnx", "cannot be loaded as ONNX")


def test_tensors_in_other_files_are_refused_at_once(tmp_path: Path) -> None:
    outside = model("decode", manifest())
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    folder = write(tmp_path, manifest(), {"decode": outside.SerializeToString()})
    refusal(lambda: open_camera(folder), folder / "decode.onnx", "another file")
