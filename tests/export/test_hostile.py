"""Artifacts that lie: damaged engines and graphs through every command that meets them, a line each and no crash.

Without a GPU no library reads an engine's bytes; what a process that dies of them leaves behind is shown by one that
dies of itself, and the tests marked ``gpu`` give TensorRT the real bytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ccnet.contract import MANIFEST_KEY, MANIFEST_NAME, Artifact, CCNetError, Manifest, sha256
from ccnet.export import device
from ccnet.export.bundle import make_bundle
from ccnet.export.engine import isolated as apart
from ccnet.export.engine.builder import BuildOptions
from ccnet.export.engine.isolated import build_isolated
from ccnet.export.engine.plan import Options, build, plan
from ccnet.export.reference import GOLDEN, Reference, pack
from ccnet.export.verify import check
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.cli.contents import contents
from ccnet.runtime.probe import open_probed, probe_in_subprocess

Ccnet = Callable[..., Any]

BASE = Manifest(
    config={"width": 32}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={"ccnet": "0"}, halo=16
)
GAIN = np.eye(3, dtype=np.float32)[2 - np.arange(31) * 3 // 31]
GRAPHS = {"encode.fp32.onnx": "encode", "decode.fp32.onnx": "decode", "decode.fp16.onnx": "decode"}
ENGINES = ("encode.fp32.tensorrt_rtx.engine", "decode.fp16.tensorrt_rtx.engine")
RTX = Options(backend="tensorrt_rtx", tile=64)
SHAPES = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 64, 64))}
OPTIONS = BuildOptions(backend="tensorrt_rtx", shapes=SHAPES)

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed: pip install 'ccnet-hsi[rtx]'"
)


def graph(kind: str) -> onnx.ModelProto:
    """encode: the frame's mean colour; decode: a blue, a green and a red third of the bands, and no context."""
    rgb = helper.make_tensor_value_info("rgb", TensorProto.FLOAT, [1, 3, "H", "W"])
    context = helper.make_tensor_value_info("context", TensorProto.FLOAT, [1, 3])
    cube = helper.make_tensor_value_info("cube", TensorProto.FLOAT, [1, 31, "H", "W"])
    if kind == "encode":
        weights = [numpy_helper.from_array(np.array([2, 3]), "axes")]
        nodes = [helper.make_node("ReduceMean", ["rgb", "axes"], ["context"], keepdims=0)]
        made = helper.make_graph(nodes, kind, [rgb], [context], weights)
    else:
        weights = [numpy_helper.from_array(GAIN.reshape(31, 3, 1, 1), "gain")]
        weights.append(numpy_helper.from_array(np.float32(0), "zero"))
        nodes = [
            helper.make_node("Conv", ["rgb", "gain"], ["colour"]),
            helper.make_node("ReduceMin", ["context"], ["least"], keepdims=0),
            helper.make_node("Mul", ["least", "zero"], ["nothing"]),
            helper.make_node("Add", ["colour", "nothing"], ["cube"]),
        ]
        made = helper.make_graph(nodes, kind, [rgb, context], [cube], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {MANIFEST_KEY: BASE.to_json()})
    return model


def reference() -> Reference:
    frame = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    colour = frame.astype(np.float32) / np.float32(255)
    cube = np.ascontiguousarray((colour @ GAIN.T).transpose(2, 0, 1))
    return Reference(source="noise", made_by="numpy", frame=frame, context=colour.mean((0, 1))[None], cube=cube)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs, and golden outputs of one frame; never changed."""
    folder, artifacts = tmp_path_factory.mktemp("exported"), []
    for name, kind in GRAPHS.items():
        onnx.save(graph(kind), folder / name)
        artifacts.append(entry(folder, name, kind, "onnx", name.split(".")[1]))
    (folder / GOLDEN).write_bytes(pack([reference()]))
    artifacts.append(entry(folder, GOLDEN, "golden", "npz", "fp32"))
    replace(BASE, artifacts=tuple(artifacts)).write(folder)
    return folder


def entry(folder: Path, name: str, kind: str, format: str, precision: str) -> Artifact:
    return Artifact(file=name, kind=kind, format=format, precision=precision, sha256=sha256(folder / name))


@pytest.fixture(scope="module")
def built(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with engines; never changed."""
    if "tensorrt_rtx" not in trt.available():
        pytest.skip("tensorrt_rtx is not installed: pip install 'ccnet-hsi[rtx]'")
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("built") / "ccnet"))
    build(folder, RTX)
    return folder


@pytest.fixture
def work(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may be changed, where commands look for it, beside a photograph."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(reference().frame).save("photo.png")
    return Path(shutil.copytree(built, tmp_path / "build" / "ccnet"))


def damaged(data: bytes, seed: int) -> bytes:
    """Bits flipped in the header or anywhere, and every third time cut short instead."""
    rng, changed = np.random.default_rng(seed), bytearray(data)
    if seed % 3 == 0:
        return data[: rng.integers(len(data))]
    for at in rng.integers(0, len(data) if seed % 3 == 1 else min(len(data), 400), int(rng.integers(1, 12))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def vouch(folder: Path) -> None:
    """The manifest says that all files are as they should be."""
    manifest = Manifest.read(folder)
    artifacts = tuple(replace(one, sha256=sha256(folder / one.file)) for one in manifest.artifacts)
    replace(manifest, artifacts=artifacts).write(folder)


def assert_refused(result: Any, *said: str) -> None:
    assert result.code == 2, result
    assert result.err.startswith("ccnet: ") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for words in said:
        assert words in result.err


# ---------------------------------------------------------------------------------------------------------------------
# engines


def hundred(work: Path, built: Path, *, lies: bool) -> Iterator[str]:
    """The engines by turns, each damaged another way; the name of the damaged one."""
    before = (built / MANIFEST_NAME).read_bytes()
    for seed in range(100):
        name, other = ENGINES[seed % 2], ENGINES[1 - seed % 2]
        (work / name).write_bytes(damaged((built / name).read_bytes(), seed))
        (work / other).write_bytes((built / other).read_bytes())
        (work / MANIFEST_NAME).write_bytes(before)
        if lies:
            vouch(work)
        yield name


@pytest.mark.slow
def test_a_hundred_damaged_engines_are_noticed(work: Path, built: Path, ccnet: Ccnet) -> None:
    """By what is behind the commands; the commands themselves, a tenth of a second each, take turns."""
    commands = [
        ("inspect", work),
        ("check", work),
        ("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"),
        ("build", work, "--backend", "tensorrt-rtx", "--window", 64, "--dry-run"),
    ]
    expect = [assert_told, assert_refused, lambda result, name: assert_refused(result), assert_planned]
    for seed, name in enumerate(hundred(work, built, lies=False)):
        with pytest.raises(CCNetError, match=rf"{name}: SHA-256 is not the manifest's") as caught:
            next(check(work, reference()))
        assert "\n" not in str(caught.value)
        (state,) = (row[-1] for row in contents(work)[0] if row[0] == name)
        assert state.startswith("is not the manifest's: damaged")
        assert [job.file for job in plan(work, RTX) if job.why == "the one that is there is damaged"] == [name]
        if seed % 4 == 0:
            expect[seed // 4 % 4](ccnet(*commands[seed // 4 % 4]), name)
        assert not Path("cube.npy").exists()
    assert_refused(ccnet("inspect", work / name), f"{name}: unknown kind of file")


def assert_told(result: Any, name: str) -> None:
    assert result.code == 0 and result.err == ""
    assert any(line.startswith(name) and "is not the manifest's" in line for line in result.out.splitlines())


def assert_planned(result: Any, name: str) -> None:
    assert result.code == 0
    assert any(line.startswith(name) and line.endswith("is damaged") for line in result.err.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU: the test below gives its library the engines")
def test_a_hundred_engines_that_the_manifest_vouches_for_are_not_run(work: Path, built: Path, ccnet: Ccnet) -> None:
    """Without a GPU every command says so, and none reads them; ONNX Runtime goes on beside them."""
    for seed, name in enumerate(hundred(work, built, lies=True)):
        assert (name, "intact") in [(row[0], row[-1]) for row in contents(work)[0]]
        with pytest.raises(CCNetError, match=r"no CUDA driver|finds no GPU|cuInit failed") as caught:
            open_probed(work, backend="tensorrt-rtx")
        assert "\n" not in str(caught.value)
        assert not any(job.why for job in plan(work, RTX))
        if seed % 10 == 0:
            assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"))
            checked = ccnet("check", work)
            assert checked.code == 0 and "tensorrt_rtx engine" in checked.out and "not run" in checked.out
            assert not Path("cube.npy").exists()
            assert ccnet("reconstruct", "photo.png", "-o", "cube.npy").code == 0
            Path("cube.npy").unlink()


@pytest.mark.parametrize("lies", [False, True], ids=["noticed", "the manifest lies"])
def test_a_bundle_beside_a_damaged_engine(work: Path, capfd: pytest.CaptureFixture[str], lies: bool) -> None:
    """It holds no engine; on the device a damaged one is built again, unless the device's own manifest lies."""
    (work / ENGINES[1]).write_bytes(b"damaged")
    if lies:
        vouch(work)
    make_bundle(work, [reference()], Path("b.zip"))
    options = ["--backend", "tensorrt-rtx", "--window", "64"]
    code = device.main(["b.zip", str(work), *options])
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    assert ((work / ENGINES[1]).read_bytes() == b"damaged") == lies
    if not trt.has_gpu():
        assert code == 0 and "not run" in told.out
        assert Manifest.read(work).find("decode", format="tensorrt_rtx", precision="fp16").read(work)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU and TensorRT-RTX, of which nothing may be used in this process."""
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="1.7.1.116"))
    monkeypatch.setattr(trt, "available", lambda: ["tensorrt_rtx"])
    monkeypatch.setattr(backend, "gpus", lambda: ("RTX 4090 (sm_89)",))
    monkeypatch.setattr(backend, "has_gpu", lambda: True)
    monkeypatch.setattr(backend, "TensorRTBackend", lambda *_, **__: pytest.fail("opened before it was tried"))


COMMANDS = [
    ("reconstruct", "photo.png", "-o", "cube.npy"),
    ("reconstruct", "photo.png", "-o", "cube.npy", "--backend", "tensorrt-rtx"),
    ("stream", "photo.png", "--sink", "cubes"),
]


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("command", COMMANDS, ids=["reconstruct", "by name", "stream"])
def test_an_engine_that_kills_its_process_is_a_line(
    work: Path, ccnet: Ccnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    (tmp_path / "dies").mkdir()
    (tmp_path / "dies" / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "dies"))
    before = sorted(tmp_path.rglob("*"))
    assert_refused(ccnet(*command), "build/ccnet: opening it ends the process (SIGSEGV)")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("work", "pretended")
@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU")
def test_what_the_other_process_refuses_is_told_here(ccnet: Ccnet) -> None:
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "cube.npy"), "build/ccnet: no CUDA driver")


LIES: list[object] = [
    None,
    True,
    "yes",
    0,
    -1,
    1.5,
    1 << 70,
    "",
    "10.3.0",
    "1.7.1.116",
    "RTX 4090 (sm_89)",
    "x\x1b[31m",
    [],
    [16, 64],
]
LIES += [[64], ["a", "b"], [None, None], {}, {"HALF": "x"}, {"HALF": [1]}]
DETAILS = ("version", "gpu", "compatible", "stripped", "window", "types", "layers", "inputs", "structure")


@pytest.mark.usefixtures("pretended")
def test_a_hundred_lies_about_engines_are_a_line_each(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version, another GPU, or words that make no sense: what does not fit this machine is never loaded."""
    loaded: list[str] = []
    times = 0

    def load(data: bytes, **options: Any) -> Any:
        loaded.append("it is loaded")
        raise CCNetError(loaded[-1])

    monkeypatch.setattr(backend, "TensorRTBackend", load)
    monkeypatch.setattr(trt, "title", lambda name: f"{name} 1.7.1")
    rng, honest = np.random.default_rng(0), Manifest.read(work)
    for _ in range(100):
        encode = honest.find("encode", format="tensorrt_rtx")
        lies = {str(key): LIES[rng.integers(len(LIES))] for key in rng.choice(DETAILS, int(rng.integers(1, 4)))}
        lying = replace(encode, details={**encode.details, **lies})
        honest.with_artifact(lying).write(work)
        loaded.clear()
        for ask in (
            lambda: Reconstructor.open(work, backend="tensorrt-rtx"),
            lambda: contents(work),
            lambda: plan(work, RTX),
        ):
            try:
                ask()
            except CCNetError as error:
                assert len(str(error).splitlines()) == 1
        about = lying.details
        fits = about["version"] == "1.7.1.116" and (not about["gpu"] or about["gpu"] == "RTX 4090 (sm_89)")
        assert bool(loaded) == (fits or about["compatible"] is True), lies
        times += bool(loaded)
    assert 20 < times < 80


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not trt.has_gpu(), reason="there is no NVIDIA GPU")
def test_a_hundred_damaged_engines_in_the_library(work: Path, built: Path) -> None:
    refused = 0
    for _ in hundred(work, built, lies=True):
        try:
            probe_in_subprocess(work, "tensorrt-rtx", "fp16")
        except CCNetError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30, "those that are cut short at least"


# ---------------------------------------------------------------------------------------------------------------------
# graphs that TensorRT parses

MANY = """
import sys
from pathlib import Path
from ccnet.contract import CCNetError
from ccnet.export.engine.builder import BuildOptions, build_engine
for path in map(Path, sys.argv[2:]):
    try:
        build_engine(path, Path(sys.argv[1]), BuildOptions(backend="tensorrt_rtx", shapes=SHAPES))
        said = "built"
    except CCNetError as error:
        said = "refused" if len(str(error).splitlines()) == 1 else "refused in many lines"
    except BaseException as error:
        said = repr(error)
    print("\\n@", path.name, said, flush=True)
"""


def outcomes(paths: list[Path], engine: Path) -> dict[str, str]:
    """What becomes of each graph; one process for as many as it survives, since a process for each takes a minute."""
    found: dict[str, str] = {}
    while len(found) < len(paths):
        left = paths[len(found) :]
        code = MANY.replace("SHAPES", repr(SHAPES))
        child = subprocess.run([sys.executable, "-c", code, engine, *left], capture_output=True, check=False)
        lines = [line.split(" ", 2) for line in child.stdout.decode(errors="replace").splitlines() if line[:2] == "@ "]
        found |= {name: said for _, name, said in lines}
        if len(lines) < len(left):
            found[left[len(lines)].name] = f"ended by {child.returncode}"
    return found


@pytest.mark.slow
@needs_rtx
@pytest.mark.parametrize("name", ["encode.fp32.onnx", "decode.fp16.onnx"])
def test_a_hundred_damaged_graphs_become_engines_or_a_line(
    exported: Path, tmp_path: Path, ccnet: Ccnet, name: str
) -> None:
    """The command builds apart, so here it sees a few of each kind and all those that kill the process."""
    paths = [tmp_path / f"{seed}.onnx" for seed in range(100)]
    for seed, path in enumerate(paths):
        path.write_bytes(damaged((exported / name).read_bytes(), seed))
    found = outcomes(paths, tmp_path / "engine")
    kinds = {what: [file for file, said in found.items() if said == what] for what in set(found.values())}
    odd = {file: said for file, said in found.items() if said not in ("built", "refused") and "ended" not in said}
    assert not odd
    assert len(kinds["refused"]) >= 50 and len(kinds["built"]) >= 3, Counter(found.values())
    tried = [file for files in kinds.values() for file in files[:3]]
    for file in dict.fromkeys([*tried, *(one for one in found if "ended" in found[one])]):
        folder = Path(shutil.copytree(exported, tmp_path / "folders" / file))
        (folder / name).write_bytes((tmp_path / file).read_bytes())
        vouch(folder)
        before = sorted(folder.iterdir())
        result = ccnet("build", folder, "--backend", "tensorrt-rtx", "--window", 64)
        if found[file] == "built":
            assert result.code == 0, result.err
            continue
        assert result.code == 2 and "Traceback" not in result.err
        assert result.err.splitlines()[-1].startswith("ccnet: ") and name in result.err.splitlines()[-1]
        left = {path.name for path in folder.iterdir()} - {path.name for path in before}
        assert left <= {ENGINES[0]} - {f"{name.rsplit('.', 1)[0]}.tensorrt_rtx.engine"}, "encode's is whole"


def test_a_parser_that_crashes_is_a_line(
    work: Path, tmp_path: Path, ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this version of TensorRT survives."""
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    result = ccnet("build", work, "--backend", "tensorrt-rtx", "--window", 64, "--force")
    assert result.code == 2 and "Traceback" not in result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("ccnet: ")
    assert "encode.fp32.onnx: building an engine of it ends the process (SIGSEGV), it is damaged" in last
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("""print('["parse", 1', end="")""", r"\(exit code 0\), it is damaged"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"\(SIGKILL\), memory ran out"),
    ],
    ids=["half a line", "killed"],
)
def test_a_process_that_says_no_more_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(apart, "python_command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(CCNetError, match=said) as caught:
        build_isolated(tmp_path / "model.onnx", tmp_path / "engine", OPTIONS)
    assert "\n" not in str(caught.value)


@needs_rtx
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_other_process(
    exported: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    def progress(*_: object) -> None:
        (tmp_path / ".engine.partial").write_bytes(b"half")  # as if it had been writing
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build_isolated(
            exported / "decode.fp16.onnx",
            tmp_path / "engine",
            OPTIONS,
            progress=progress,
        )
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_a_build_apart_tells_what_a_build_here_does(exported: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = build_isolated(
        exported / "decode.fp16.onnx",
        tmp_path / "engine",
        OPTIONS,
        progress=lambda *step: told.append(step),
    )
    assert report.bytes == (tmp_path / "engine").stat().st_size > 1000
    assert [(one.name, one.shape, one.range) for one in report.io] == [
        ("rgb", (1, 3, -1, -1), SHAPES["rgb"]),
        ("context", (1, 3), None),
        ("cube", (1, 31, -1, -1), None),
    ]
    assert told and told[-1][1] == told[-1][2]


def test_nothing_is_imported_from_the_folder_that_is_inspected(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder from elsewhere may hold a json.py or a ccnet.py, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("json.py", "numpy.py", "ccnet.py"):
        Path(name).write_text("raise SystemExit(7)\n")
    probe_in_subprocess(exported, "onnxruntime", "fp16")


@needs_rtx
@pytest.mark.parametrize("location", ["/etc/passwd", "../outside.bin", "weights.bin"])
@pytest.mark.parametrize("command", ["build", "inspect"])
def test_weights_in_other_files_are_read_by_nobody(
    exported: Path, tmp_path: Path, ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch, location: str, command: str
) -> None:
    """TensorRT and ONNX Runtime would take those beside the graph, which no hash vouches for."""
    folder = Path(shutil.copytree(exported, tmp_path / "folder"))
    monkeypatch.chdir(folder)
    for path in (folder / "weights.bin", tmp_path / "outside.bin"):
        path.write_bytes(bytes(GAIN.nbytes))
    model = graph("decode")
    gain = next(one for one in model.graph.initializer if one.name == "gain")
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    gain.external_data.add(key="location", value=location)
    (folder / "decode.fp16.onnx").write_bytes(model.SerializeToString())
    vouch(folder)
    asked = [folder, "--backend", "tensorrt-rtx", "--window", 64] if command == "build" else ["decode.fp16.onnx"]
    result = ccnet(command, *asked)
    assert result.code == 2 and "decode.fp16.onnx: keeps tensors in another file" in result.err.splitlines()[-1]
    assert not (folder / ENGINES[1]).exists()
