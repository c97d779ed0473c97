"""A small artifact folder without a network, and what the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ccnet.contract import MANIFEST_KEY, MANIFEST_NAME, Artifact, Manifest, sha256
from ccnet.runtime.cli import app

MANIFEST = Manifest(
    config={"width": 32}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={"ccnet": "0"}, halo=16
)


class StubArtifacts:
    """Graphs that are quick to make and to run, under a manifest."""

    gain = np.eye(3)[2 - np.arange(31) * 3 // 31]
    """(31, 3): the first third of the bands is blue, the second green, the third red."""

    def graph(self, kind: str, manifest: Manifest = MANIFEST) -> onnx.ModelProto:
        """encode: the mean colour of the frame; decode: the channels spread over the bands, the context times zero."""
        rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "H", "W"])
        context = helper.make_tensor_value_info("context", TensorProto.FLOAT, [1, 3])
        cube = helper.make_tensor_value_info("cube", TensorProto.FLOAT, [1, 31, "H", "W"])
        if kind == "encode":
            axes = numpy_helper.from_array(np.array([2, 3]), "axes")
            nodes = [helper.make_node("ReduceMean", ["rgb", "axes"], ["context"], keepdims=0)]
            graph = helper.make_graph(nodes, kind, [rgb], [context], [axes])
        else:
            nodes = [
                helper.make_node("Conv", ["rgb", "gain"], ["colour"]),
                helper.make_node("ReduceMin", ["context"], ["smallest"], keepdims=0),
                helper.make_node("Mul", ["smallest", "zero"], ["nothing"]),
                helper.make_node("Add", ["colour", "nothing"], ["cube"]),
            ]
            gain = numpy_helper.from_array(self.gain.reshape(31, 3, 1, 1).astype(np.float32), "gain")
            zero = numpy_helper.from_array(np.float32(0), "zero")
            graph = helper.make_graph(nodes, kind, [rgb, context], [cube], [gain, zero])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, {MANIFEST_KEY: manifest.to_json()})
        return model

    def without_manifest(self, kind: str) -> bytes:
        model = self.graph(kind)
        del model.metadata_props[:]
        return bytes(model.SerializeToString())

    def infinite(self) -> bytes:
        """A decode whose cube is not finite."""
        model = self.graph("decode")
        zero = next(tensor for tensor in model.graph.initializer if tensor.name == "zero")
        zero.CopyFrom(numpy_helper.from_array(np.float32(np.inf), "zero"))
        return bytes(model.SerializeToString())

    def write(self, folder: Path) -> None:
        artifacts = []
        for kind in ("encode", "decode"):
            path = folder / f"{kind}.onnx"
            onnx.save(self.graph(kind), path)
            artifacts.append(Artifact(file=path.name, kind=kind, format="onnx", precision="fp32", sha256=sha256(path)))
        (folder / MANIFEST_NAME).write_text(replace(MANIFEST, artifacts=tuple(artifacts)).to_json())

    def vouch(self, folder: Path, manifest: Manifest | None = None) -> None:
        """Write a manifest with the SHA-256 of the files as they are."""
        manifest = manifest or Manifest.read(folder)
        artifacts = tuple(replace(entry, sha256=sha256(folder / entry.file)) for entry in manifest.artifacts)
        replace(manifest, artifacts=artifacts).write(folder)

    def replace(self, folder: Path, kind: str, data: bytes) -> None:
        """Put other content into a graph's file, under a manifest that vouches for it."""
        (folder / f"{kind}.onnx").write_bytes(data)
        self.vouch(folder)


@pytest.fixture(scope="session")
def stub() -> StubArtifacts:
    return StubArtifacts()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, stub: StubArtifacts) -> Path:
    """An artifact folder; tests must not change it."""
    folder = tmp_path_factory.mktemp("artifacts")
    stub.write(folder)
    return folder


@pytest.fixture
def work(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photograph and artifacts in the default folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build" / "ccnet"
    folder.mkdir(parents=True)
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


@pytest.fixture
def one_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the parser of the command line once for all calls of a test: it takes four fifths of a short call."""
    built = app.build_app()
    command = typer.main.get_command(built[0])
    monkeypatch.setattr(app, "build_app", lambda: built)
    monkeypatch.setattr(typer.main, "get_command", lambda _: command)


@pytest.fixture(scope="session")
def truncate() -> Callable[[Path], None]:
    """truncate(path): cut the last 40 bytes off a file."""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-40])

    return cut


@pytest.fixture(scope="session")
def assert_refused() -> Callable[[Any, str], None]:
    """assert_refused(result, words): the command printed one line with these words, and its exit code is 2."""

    def check(result: Any, words: str) -> None:
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("ccnet: ") and result.err.count("\n") == 1, result.err
        assert words in result.err

    return check


@pytest.fixture
def work_with_camera(work: Path, stub: Any) -> Path:
    """Artifacts that name their camera, whose channels are the thirds of the bands that ``decode`` makes of them."""
    name_camera(work, stub, stub.gain)
    return work


def name_camera(work: Path, stub: Any, gain: Any) -> Any:
    """Let the artifacts name a camera, and return its response (31, 3)."""
    response = gain / gain.sum(axis=0)
    camera = {"name": "thirds", "response": response.tolist()}
    folder = work / "build" / "ccnet"
    manifest = replace(Manifest.read(folder), camera=camera)
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    for kind in ("encode", "decode"):
        model = stub.graph(kind, replace(manifest, artifacts=()))
        stub.replace(folder, kind, bytes(model.SerializeToString()))
    return response.astype(np.float32)
