"""The command line: what it makes of good input, and one line with exit code 2 for all else."""

from __future__ import annotations

import importlib.metadata
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ccnet import __version__
from ccnet.contract import BANDS_NM, MANIFEST_KEY, MANIFEST_NAME, Artifact, CCNetError, Manifest, sha256
from ccnet.runtime import read_cube
from ccnet.runtime.io.srgb import from_srgb

Ccnet = Callable[..., Any]
Result = Any

BASE = Manifest(
    config={"width": 32}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={"ccnet": "0"}, halo=16
)


def graph(kind: str) -> onnx.ModelProto:
    """encode: the frame's mean colour; decode: a blue, a green and a red third of the bands, and no context."""
    gain = np.eye(3)[2 - np.arange(31) * 3 // 31].reshape(31, 3, 1, 1).astype(np.float32)
    rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "H", "W"])
    context = helper.make_tensor_value_info("context", TensorProto.FLOAT, [1, 3])
    cube = helper.make_tensor_value_info("cube", TensorProto.FLOAT, [1, 31, "H", "W"])
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    if kind == "encode":
        nodes = [helper.make_node("ReduceMean", ["rgb", "axes"], ["context"], keepdims=0)]
        made = helper.make_graph(nodes, kind, [rgb], [context], [axes])
    else:
        nodes = [
            helper.make_node("Conv", ["rgb", "gain"], ["colour"]),
            helper.make_node("ReduceMin", ["context"], ["least"], keepdims=0),
            helper.make_node("Mul", ["least", "zero"], ["nothing"]),
            helper.make_node("Add", ["colour", "nothing"], ["cube"]),
        ]
        zero = numpy_helper.from_array(np.float32(0), "zero")
        made = helper.make_graph(nodes, kind, [rgb, context], [cube], [numpy_helper.from_array(gain, "gain"), zero])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {MANIFEST_KEY: BASE.to_json()})
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder that is never changed."""
    folder = tmp_path_factory.mktemp("artifacts")
    artifacts = []
    for kind in ("encode", "decode"):
        path = folder / f"{kind}.onnx"
        onnx.save(graph(kind), path)
        artifacts.append(Artifact(file=path.name, kind=kind, format="onnx", precision="fp32", sha256=sha256(path)))
    (folder / MANIFEST_NAME).write_text(replace(BASE, artifacts=tuple(artifacts)).to_json())
    return folder


@pytest.fixture
def work(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with artifacts where they are looked for and a photograph."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build" / "ccnet"
    folder.mkdir(parents=True)
    for path in exported.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path


def assert_refused(result: Result, said: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("ccnet: ") and result.err.count("\n") == 1, result.err
    assert said in result.err


# ---------------------------------------------------------------------------------------------------------------------
# reconstruct


@pytest.mark.parametrize("space", ["srgb", "camera"])
@pytest.mark.parametrize("suffix", ["hdr", "mat", "npy"])
def test_a_photograph_becomes_a_cube(work: Path, ccnet: Ccnet, suffix: str, space: str) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", f"photo.{suffix}", "--tile", "64", "--input-space", space)
    assert result.code == 0 and result.err == ""
    assert f"photo.{suffix}: 70×40 px" in result.out and "onnxruntime" in result.out and "fp32" in result.out
    pixels = np.asarray(Image.open("photo.png"), np.float32) / 255
    pixels = from_srgb(pixels) if space == "srgb" else pixels
    cube = read_cube(Path(f"photo.{suffix}"))
    for band, channel in ((0, 2), (15, 1), (30, 0)):
        np.testing.assert_allclose(cube[band], pixels[..., channel], atol=1e-6)


def test_the_cube_says_where_it_comes_from(work: Path, ccnet: Ccnet) -> None:
    ccnet("reconstruct", "photo.png", "-o", "photo.hdr")
    header = Path("photo.hdr").read_text()
    for part in ("source = photo.png", f"weights sha256 = {'5a' * 8}", "onnxruntime", "fp32", f"= {__version__}"):
        assert part in header


def test_several_frames_go_into_a_folder(work: Path, ccnet: Ccnet) -> None:
    Image.open("photo.png").save("second.bmp")
    result = ccnet("reconstruct", "photo.png", "second.bmp", "-o", "cubes", "--format", "mat")
    assert result.code == 0 and result.out.count("\n") == 2
    assert {path.name for path in Path("cubes").iterdir()} == {"photo.mat", "second.mat"}


def test_one_frame_goes_into_a_folder_that_is_there(work: Path, ccnet: Ccnet) -> None:
    Path("cubes").mkdir()
    assert ccnet("reconstruct", "photo.png", "-o", "cubes").code == 0
    assert {path.name for path in Path("cubes").iterdir()} == {"photo.hdr", "photo.img"}


def test_a_frame_named_as_a_cubes_values_is_kept(work: Path, ccnet: Ccnet) -> None:
    """Frames are known by their content, and ENVI's values lie beside their header as .img."""
    Path("photo.png").rename("photo.img")
    before = Path("photo.img").read_bytes()
    assert_refused(ccnet("reconstruct", "photo.img", "-o", "photo.hdr"), "is a frame")
    assert Path("photo.img").read_bytes() == before


def test_a_picture_is_drawn_on_demand(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--picture", "look.png")
    assert result.code == 0 and result.out.splitlines()[-1] == "look.png"
    with Image.open("look.png") as image:
        assert image.format == "PNG"


@pytest.fixture
def known(work: Path) -> Path:
    """Artifacts that know their camera: its channels are the thirds of the bands that ``decode`` makes of them."""
    gain = np.eye(3)[2 - np.arange(31) * 3 // 31]
    camera = {"name": "thirds", "response": (gain / gain.sum(axis=0)).tolist()}
    folder = work / "build" / "ccnet"
    manifest = replace(Manifest.read(folder), camera=camera)
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    for kind in ("encode", "decode"):
        model = graph(kind)
        helper.set_model_props(model, {MANIFEST_KEY: replace(manifest, artifacts=()).to_json()})
        replace_graph(work, kind, bytes(model.SerializeToString()))
    return work


def test_how_well_the_cube_explains_the_frame_is_said_and_drawn(known: Path, ccnet: Ccnet) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--consistency", "where.png")
    assert result.code == 0 and result.err == ""
    _, verdict, drawn = result.out.splitlines()
    assert verdict.startswith("photo.npy: consistency: the cube explains the frame to 0.0%") and drawn == "where.png"
    with Image.open("where.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
    assert "thirds" in ccnet("inspect", "build/ccnet").out


def test_other_artifacts_say_nothing_of_it_and_draw_nothing(work: Path, ccnet: Ccnet) -> None:
    assert "consistency" not in ccnet("reconstruct", "photo.png", "-o", "photo.npy").out
    before = sorted(work.rglob("*"))
    asked = ("reconstruct", "photo.png", "-o", "photo.hdr", "--consistency", "where.png")
    assert_refused(ccnet(*asked), "do not say which camera")
    assert sorted(work.rglob("*")) == before


def test_other_artifacts_can_be_named(work: Path, ccnet: Ccnet) -> None:
    Path("build/ccnet").rename("elsewhere")
    assert ccnet("reconstruct", "photo.png", "-o", "a.npy", "--artifacts", "elsewhere").code == 0
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "b.npy"), "build/ccnet: no manifest.json; expected a folder")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def make_folder(work: Path) -> None:
    (work / "photo.png").unlink()
    (work / "photo.png").mkdir()


def replace_graph(work: Path, kind: str, data: bytes) -> None:
    """Another file under a manifest that knows it."""
    folder = work / "build" / "ccnet"
    (folder / f"{kind}.onnx").write_bytes(data)
    manifest = Manifest.read(folder)
    artifacts = tuple(replace(a, sha256=sha256(folder / a.file)) for a in manifest.artifacts)
    (folder / MANIFEST_NAME).write_text(replace(manifest, artifacts=artifacts).to_json())


def without_manifest(kind: str) -> bytes:
    model = graph(kind)
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def infinite() -> bytes:
    model = graph("decode")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.float32(np.inf), "zero"))
    return bytes(model.SerializeToString())


SPOIL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "frame missing": (lambda work: (work / "photo.png").unlink(), "photo.png: no such file"),
    "frame empty": (lambda work: (work / "photo.png").write_bytes(b""), "photo.png: is empty"),
    "frame truncated": (lambda work: truncate(work / "photo.png"), "photo.png: damaged"),
    "frame of words": (lambda work: (work / "photo.png").write_text("hello " * 9), "photo.png: not a PNG"),
    "frame grey": (lambda work: Image.new("L", (32, 32)).save(work / "photo.png"), "grey"),
    "frame of one pixel": (lambda work: Image.new("RGB", (1, 1)).save(work / "photo.png"), "too small"),
    "frame a folder": (make_folder, "photo.png: is a directory"),
    "manifest of words": (lambda work: (work / "build/ccnet/manifest.json").write_text("{"), "not a ccnet manifest"),
    "manifest empty": (lambda work: (work / "build/ccnet/manifest.json").write_text("{}"), "manifest version"),
    "graph missing": (lambda work: (work / "build/ccnet/decode.onnx").unlink(), "decode.onnx"),
    "graph truncated": (lambda work: truncate(work / "build/ccnet/decode.onnx"), "SHA-256"),
    "graph of words": (lambda work: replace_graph(work, "decode", b"hello " * 9), "decode.onnx"),
    "graph of others": (lambda work: replace_graph(work, "encode", without_manifest("encode")), "manifest"),
    "graph gives NaN": (lambda work: replace_graph(work, "decode", infinite()), "NaN or infinite"),
}


@pytest.mark.parametrize("what", SPOIL)
def test_what_is_spoilt_is_one_line_and_leaves_nothing(work: Path, ccnet: Ccnet, what: str) -> None:
    spoil, said = SPOIL[what]
    spoil(work)
    before = sorted(work.rglob("*"))
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--picture", "look.png"), said)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("reconstruct", "Missing"),
        ("reconstruct photo.png", "--out"),
        ("reconstruct photo.png -o photo.tif", "unknown cube format '.tif'"),
        ("reconstruct photo.png -o photo", "unknown cube format ''"),
        ("reconstruct photo.png -o nowhere/photo.hdr", "does not exist"),
        ("reconstruct photo.png -o /dev/null/photo.hdr", "photo.hdr"),
        ("reconstruct photo.png -o a.npy --backend nonsense", "--backend"),
        ("reconstruct photo.png -o a.npy --backend tensorrt-rtx", "build/ccnet: "),
        ("reconstruct photo.png -o a.npy --precision fp16", "fp16"),
        ("reconstruct photo.png -o a.npy --precision int3", "--precision"),
        ("reconstruct photo.png -o a.npy --window 33", "tile is 33 px"),
        ("reconstruct photo.png -o a.npy --window big", "--window"),
        ("reconstruct photo.png -o a.npy --artifacts photo.png", "no manifest.json"),
        ("reconstruct photo.png -o a.npy --picture look.jpg", "expected .png"),
        ("reconstruct photo.png -o a.npy --picture photo.png", "is the frame"),
        ("reconstruct photo.png -o a.npy --consistency look.jpg", "expected .png"),
        ("reconstruct photo.png -o a.npy --consistency photo.png", "is the frame"),
        ("reconstruct photo.png -o a.npy --consistency a.png --picture ./a.png", "both --picture and --reprojection"),
        ("reconstruct photo.png other.png -o cubes --consistency a.png", "of one frame, but 2 were given"),
        ("reconstruct photo.png photo.png -o cubes", "two frames have this name"),
        ("reconstruct photo.png photo.png -o cubes.mat", "expected the folder"),
        ("reconstruct photo.png b/other.png -o photo.png/x", "photo.png/x"),
        ("reconstruct photo.png other.png -o cubes --picture look.png", "of one frame, but 2 were given"),
        ("reconstruct photo.npy -o photo.npy", "is a frame"),
        ("reconstruct ./photo.npy -o build/../photo.npy", "is a frame"),
        ("inspect", "Missing"),
        ("inspect nothing.onnx", "nothing.onnx: no such file"),
        ("inspect build", "no manifest.json"),
        ("nonsense", "No such command 'nonsense'"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(work: Path, ccnet: Ccnet, arguments: str, said: str) -> None:
    before = sorted(work.rglob("*"))
    assert_refused(ccnet(*arguments.split()), said)
    assert sorted(work.rglob("*")) == before


# ---------------------------------------------------------------------------------------------------------------------
# inspect


def test_inspect_tells_an_artifact_folder(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("inspect", "build/ccnet")
    assert result.code == 0
    rows = [line.split() for line in result.out.splitlines()]
    assert ["encode.onnx", "encode", "onnx", "fp32", "0.00", "intact"] in rows
    assert ["halo", "16", "px"] in rows and ["width", "32"] in rows and ["ccnet", "0"] in rows
    truncate(work / "build/ccnet/encode.onnx")
    (work / "build/ccnet/decode.onnx").unlink()
    rows = [line.split() for line in ccnet("inspect", "build/ccnet").out.splitlines()]
    assert [row[-1] for row in rows if row[:1] == ["decode.onnx"]] == ["missing"]
    assert any(row[:1] == ["encode.onnx"] and "damaged," in row for row in rows)


def test_inspect_tells_a_graph(work: Path, ccnet: Ccnet) -> None:
    out = ccnet("inspect", "build/ccnet/decode.onnx").out
    assert "input rgb" in out and "(1, 3, H, W)" in out and "output cube" in out and "5a5a" in out
    Path("foreign.onnx").write_bytes(without_manifest("encode"))
    assert "not made by 'ccnet export'" in ccnet("inspect", "foreign.onnx").out


def weights(header: object, data: bytes = bytes(48)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TENSOR = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def test_inspect_tells_weights(work: Path, ccnet: Ccnet) -> None:
    notes = {"config": json.dumps({"units": 3}), "steps": "900\x1b[31m"}
    Path("w.safetensors").write_bytes(weights({"__metadata__": notes, "a": TENSOR}))
    out = ccnet("inspect", "w.safetensors").out
    rows = [line.split() for line in out.splitlines()]
    assert ["parameters", "12"] in rows and ["units", "3"] in rows and ["dtype", "F32"] in rows
    assert "900?[31m" in out and "\x1b" not in out


def test_inspect_tells_cubes_and_frames(work: Path, ccnet: Ccnet) -> None:
    ccnet("reconstruct", "photo.png", "-o", "cube.npy")
    np.save("frame.npy", np.zeros((20, 31, 3), np.uint16))
    out = ccnet("inspect", "cube.npy").out
    assert "70×40 px, 31 bands" in out and all(f"\n{nm} " in out for nm in BANDS_NM)
    assert "31×20 px" in ccnet("inspect", "frame.npy").out
    assert "70×40 px, 0.0028 Mpx, uint8" in ccnet("inspect", "photo.png").out


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"hello"),
        ("a", b"hello"),
        ("a.npy", b"hello"),
        ("a.npy", b""),
        ("a.onnx", b"hello"),
        ("a.hdr", b"ENVI\nsamples = 3"),
        ("a.mat", b"\x89HDF\r\n\x1a\n"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.safetensors", b"\x01"),
        ("a.safetensors", b"\xff" * 64),
        ("a.safetensors", struct.pack("<Q", 1 << 40)),
        ("a.safetensors", weights([1])),
        ("a.safetensors", weights({"a": TENSOR}, bytes(47))),
        ("a.safetensors", weights({"a": 3})),
        ("a.safetensors", weights({"a": TENSOR, "__metadata__": {"config": "{"}})),
        ("a.safetensors", weights({"a": TENSOR, "__metadata__": [1]})),
    ],
)
def test_inspect_refuses_what_it_does_not_know(work: Path, ccnet: Ccnet, name: str, data: bytes) -> None:
    Path(name).write_bytes(data)
    assert_refused(ccnet("inspect", name), f"{name}: ")


@pytest.mark.parametrize("field", ["config", "tools", "weights_sha256"])
def test_inspect_refuses_a_manifest_of_wrong_types(work: Path, ccnet: Ccnet, field: str) -> None:
    path = Path("build/ccnet/manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 7}))
    assert_refused(ccnet("inspect", "build/ccnet"), "build/ccnet")


# ---------------------------------------------------------------------------------------------------------------------
# The program


@pytest.mark.parametrize("command", ["", "reconstruct", "inspect"])
def test_help_is_complete(ccnet: Ccnet, command: str) -> None:
    result = ccnet(*command.split(), "--help")
    assert result.code == 0 and result.err == ""
    assert f"Usage: ccnet {command}".rstrip() in result.out
    if command == "":
        assert {"reconstruct", "inspect"} <= set(result.out.split())


def test_no_command_shows_the_help(ccnet: Ccnet) -> None:
    assert ccnet() == ccnet("--help")


def test_the_version(ccnet: Ccnet) -> None:
    assert ccnet("--version") == (0, f"ccnet {__version__}\n", "")


class Entry(NamedTuple):
    """Stands for an installed entry point."""

    name: str
    load: Callable[[], typer.Typer]


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], typer.Typer]], None]:
    def one(load: Callable[[], typer.Typer]) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry("plugin", load)])

    return one


def command(body: Callable[[], None]) -> Callable[[], typer.Typer]:
    app = typer.Typer()
    app.command("go")(body)
    return lambda: app


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        """Goes wrong."""
        raise error

    return body


def test_other_packages_commands_stand_beside_the_runtimes(plug: Any, ccnet: Ccnet) -> None:
    plug(command(lambda: print("gone")))
    assert ccnet("go") == (0, "gone\n", "")
    assert ccnet("go") == (0, "gone\n", "")
    assert {"go", "reconstruct", "inspect"} <= set(ccnet("--help").out.split())


def test_packages_that_cannot_be_loaded_say_what_to_install(plug: Any, ccnet: Ccnet) -> None:
    def load() -> typer.Typer:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    plug(load)
    hint = "torch is not installed: pip install 'ccnet-hsi[train]'"
    assert hint in " ".join(ccnet("--help").out.split())
    assert_refused(ccnet("train"), hint)
    assert_refused(ccnet("inspect", "nothing.png"), "nothing.png: no such file")


OUT_OF_MEMORY = "ccnet: out of memory: take a smaller frame or window, or in training a smaller --batch or --patch\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CCNetError("first\nsecond"), 2, "ccnet: first second\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "ccnet: x.png: No such file or directory\n"),
        (OSError("disk on fire"), 2, "ccnet: disk on fire\n"),
        (MemoryError(), 2, OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 2, OUT_OF_MEMORY),
        (ModuleNotFoundError(name="onnx_ir.x"), 2, "ccnet: onnx_ir.x is not installed: pip install 'ccnet-hsi[export]"),
        (ModuleNotFoundError(name="onnx"), 2, "ccnet: onnx is not installed: pip install 'ccnet-hsi[export]'\n"),
        (ImportError("libGL.so.1 is missing"), 2, "ccnet: libGL.so.1 is missing\n"),
        (typer.Exit(1), 1, ""),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
    ],
)
def test_what_a_command_raises_becomes_a_line_and_a_code(
    plug: Any, ccnet: Ccnet, error: BaseException, code: int, said: str
) -> None:
    plug(command(raising(error)))
    result = ccnet("go")
    assert result.code == code and result.out == ""
    assert result.err.startswith(said) and result.err.count("\n") == bool(said)


def test_without_typer_the_extra_is_named(ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    assert_refused(ccnet("--help"), "typer is not installed: pip install 'ccnet-hsi[cli]'")


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from ccnet.runtime.cli.main import main
sys.argv = ["ccnet", "--help"]
try: main()
finally: print([m for m in ("torch", "onnx", "onnxruntime", "matplotlib", "cv2", "h5py", "PIL") if m in sys.modules])
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = """
import os, sys
from ccnet.runtime.cli.main import main
end, start = os.pipe()
os.close(end)
os.dup2(start, 1)
sys.argv = ["ccnet", "--help"]
main()
"""
    result = python(code)
    assert result.stderr == "" and result.returncode == 1


def test_paths_beyond_the_terminals_encoding_are_no_error(work: Path) -> None:
    code = """
import sys
from ccnet.runtime.cli.main import main
sys.argv = ["ccnet", "reconstruct", "photo.png", "-o", "\\udcff×.npy"]
main()
"""
    result = python(code, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert result.returncode == 0 and result.stdout.startswith("\\udcff\\xd7.npy: 70\\xd740 px"), result


# ---------------------------------------------------------------------------------------------------------------------
# hostile artifacts


def corrupted(data: bytes, seed: int) -> bytes:
    """A few bits flipped, and every third time cut short as well."""
    rng, damaged = np.random.default_rng(seed), bytearray(data)
    for at in rng.integers(0, len(data), int(rng.integers(1, 12))):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged[: rng.integers(len(data))] if seed % 3 == 0 else damaged)


@pytest.mark.parametrize("name", ["manifest.json", "encode.onnx", "decode.onnx"])
@pytest.mark.parametrize("lies", [False, True], ids=["noticed", "the manifest lies"])
def test_a_hundred_corruptions_are_a_line_each(work: Path, exported: Path, ccnet: Ccnet, name: str, lies: bool) -> None:
    """Where the manifest vouches for what is damaged, it is ONNX Runtime that must refuse it, or run it."""
    if lies and name == MANIFEST_NAME:
        pytest.skip("nothing vouches for a manifest")
    folder, refusals = work / "build" / "ccnet", 0
    for seed in range(100):
        (folder / name).write_bytes(corrupted((exported / name).read_bytes(), seed))
        if lies:
            manifest = Manifest.read(exported)
            artifacts = tuple(replace(one, sha256=sha256(folder / one.file)) for one in manifest.artifacts)
            replace(manifest, artifacts=artifacts).write(folder)
        result = ccnet("reconstruct", "photo.png", "-o", "cube.npy")
        if result.code:
            assert_refused(result, "")
            assert not Path("cube.npy").exists()
            refusals += 1
        Path("cube.npy").unlink(missing_ok=True)
        if name != MANIFEST_NAME:
            assert ccnet("inspect", folder / name).code in (0, 2)
    assert refusals >= (30 if lies else 90 if name != MANIFEST_NAME else 60)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../outside.bin", "weights.bin"], ids=["absolute", "above", "beside"]
)
def test_weights_in_other_files_are_refused(work: Path, ccnet: Ccnet, location: str) -> None:
    folder = work / "build" / "ccnet"
    (folder / "weights.bin").write_bytes(bytes(31 * 3 * 4))
    model = onnx.load(folder / "decode.onnx")
    gain = next(one for one in model.graph.initializer if one.name == "gain")
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    gain.external_data.add(key="location", value=location)
    (folder / "decode.onnx").write_bytes(model.SerializeToString())
    manifest = Manifest.read(folder)
    artifacts = tuple(replace(one, sha256=sha256(folder / one.file)) for one in manifest.artifacts)
    replace(manifest, artifacts=artifacts).write(folder)
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy"), "keeps tensors in another file")
