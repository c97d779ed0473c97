"""ONNX Runtime: valid graphs run in little memory, invalid ones give one line, and no provider is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import ArtifactFolder, CCNetError
from ccnet.model import CCNet
from ccnet.runtime.backends import onnxruntime as module
from ccnet.runtime.backends.arena import shared_arena
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import select

Array = npt.NDArray[Any]


def convolution(dtype: int = TensorProto.FLOAT, height: int | str = "H") -> onnx.ModelProto:
    """Return a graph rgb (1, 3, H, W) → cube (1, 2, H, W), the sum of channels times 1 and 2, with a metadata entry."""
    weight = numpy_helper.from_array(np.array([[1, 1, 1], [2, 2, 2]], np.float32).reshape(2, 3, 1, 1), "weight")
    nodes = [
        helper.make_node("Cast", ["rgb"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "weight"], ["cube"]),
    ]
    rgb = helper.make_tensor_value_info("rgb", dtype, [1, 3, height, "W"])
    cube = helper.make_tensor_value_info("cube", TensorProto.FLOAT, [1, 2, height, "W"])
    graph = helper.make_graph(nodes, "convolution", [rgb], [cube], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"key": "value"})
    return model


def with_external_weight(location: str) -> bytes:
    model = convolution()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    return bytes(model.SerializeToString())


def refusal(*words: str, **arguments: Any) -> None:
    with pytest.raises(CCNetError) as caught:
        OnnxRuntimeBackend(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message


# --- valid graphs


@pytest.mark.parametrize(("onnx_type", "dtype"), [(TensorProto.FLOAT, np.float32), (TensorProto.UINT8, np.uint8)])
@pytest.mark.parametrize("size", [(1, 1), (16, 48)])
def test_graph_runs_and_gives_its_outputs(onnx_type: int, dtype: type, size: tuple[int, int]) -> None:
    rgb: Array = np.random.default_rng(0).integers(0, 9, (1, 3, *size)).astype(dtype)
    with OnnxRuntimeBackend(convolution(onnx_type).SerializeToString(), threads=1) as backend:
        outputs = backend.run({"rgb": rgb})
        assert backend.metadata == {"key": "value"}
        assert backend.name == f"onnxruntime {onnxruntime.__version__} (cpu)"
    total = rgb.sum(1, dtype=np.float32)
    assert outputs.keys() == {"cube"}
    np.testing.assert_array_equal(outputs["cube"], np.stack([total, 2 * total], 1))


def test_graph_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(convolution().SerializeToString())
    with OnnxRuntimeBackend(path) as backend:
        assert backend.run({"rgb": np.ones((1, 3, 2, 2), np.float32)})["cube"].max() == 6


def test_backend_closes_twice_and_then_refuses_to_run() -> None:
    backend = OnnxRuntimeBackend(convolution().SerializeToString())
    backend.close()
    backend.close()
    with pytest.raises(CCNetError, match="is closed"):
        backend.run({"rgb": np.ones((1, 3, 2, 2), np.float32)})


# --- invalid inputs


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "inputs are none, the graph takes rgb"),
        ({"image": np.ones((1, 3, 4, 4), np.float32)}, "inputs are image, the graph takes rgb"),
        ({"rgb": np.ones((1, 3, 4, 4))}, "input 'rgb' has dtype float64, expected float32"),
        ({"rgb": np.ones((3, 4, 4), np.float32)}, r"input 'rgb' has shape \(3, 4, 4\), the graph takes \(1, 3, 4, W\)"),
        ({"rgb": np.ones((1, 4, 4, 4), np.float32)}, r"input 'rgb' has shape \(1, 4, 4, 4\)"),
        ({"rgb": np.ones((1, 3, 5, 4), np.float32)}, r"input 'rgb' has shape \(1, 3, 5, 4\)"),
    ],
)
def test_invalid_input_is_named(feeds: dict[str, Array], message: str) -> None:
    with (
        OnnxRuntimeBackend(convolution(height=4).SerializeToString()) as backend,
        pytest.raises(CCNetError, match=message),
    ):
        backend.run(feeds)


def test_failure_while_running_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    model = convolution()
    model.graph.node.append(helper.make_node("Reshape", ["cube", "shape"], ["eight"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([8]), "shape"))
    model.graph.output.append(helper.make_tensor_value_info("eight", TensorProto.FLOAT, [8]))
    with OnnxRuntimeBackend(model.SerializeToString()) as backend:
        assert backend.run({"rgb": np.ones((1, 3, 2, 2), np.float32)})["eight"].shape == (8,)
        with pytest.raises(CCNetError, match=r"failed on rgb \(1, 3, 2, 3\)") as caught:
            backend.run({"rgb": np.ones((1, 3, 2, 3), np.float32)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


# --- invalid files


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"GIF89a, not a model at all\n" * 9, id="text"),
        pytest.param(bytes(1000), id="zeros"),
        *(pytest.param(convolution().SerializeToString()[:cut], id=f"cut {cut}") for cut in (1, 40, 150, -1)),
    ],
)
def test_damaged_or_foreign_file_is_one_line_that_names_it(
    data: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    refusal(str(path), "cannot be loaded as ONNX", model=path)
    assert capfd.readouterr().err == ""


def test_missing_file_or_a_folder_is_one_line_that_names_it(tmp_path: Path) -> None:
    refusal(str(tmp_path / "none.onnx"), "No such file", model=tmp_path / "none.onnx")
    refusal(str(tmp_path), "cannot be read", model=tmp_path)


@pytest.mark.parametrize("location", ["weight.bin", "../weights/weight.bin"])
def test_tensors_in_other_files_are_never_read(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    np.ones(6, np.float32).tofile(folder / "weight.bin")
    monkeypatch.chdir(folder)  # where ONNX Runtime looks when a model comes as bytes
    refusal("keeps tensors in another file", model=with_external_weight(location))


def test_inputs_of_other_types_are_refused() -> None:
    refusal("'rgb' is tensor(double)", model=convolution(TensorProto.DOUBLE).SerializeToString())


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads: int) -> None:
    refusal(f"threads is {threads}", model=b"", threads=threads)


# --- providers


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_missing_provider_is_refused(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    refusal("has no", 'pip install ".[cuda]"', model=convolution().SerializeToString(), provider=provider)


@pytest.mark.parametrize("prints", ["", "Failed to load libcudnn.so.9\n"])
def test_gpu_providers_load_the_cuda_libraries_of_pip_first(
    prints: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def preload_dlls() -> None:
        calls.append("preload")
        print(prints, end="")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls, raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: calls.append("session"))
    with pytest.raises(AttributeError):  # the session is None
        OnnxRuntimeBackend(convolution().SerializeToString(), provider="cuda")
    assert calls == ["preload", "session"]
    assert capfd.readouterr() == ("", "")
    calls.clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(AttributeError):
        OnnxRuntimeBackend(convolution().SerializeToString())
    assert calls == ["session"]


@pytest.mark.parametrize("code", ["OnnxRuntimeBackend(b'x')", "cuda_refusal()"])
def test_missing_onnxruntime_names_the_extras(code: str) -> None:
    script = f"""
import sys
sys.modules["onnxruntime"] = None  # an import of it fails
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, cuda_refusal
try:
    print({code})
except Exception as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.count("\n") == 1 and "onnxruntime cannot be loaded" in told
    assert 'pip install ".[cpu]" in a clone of the repository; with an NVIDIA GPU ".[gpu]"' in told


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA would start")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_provider_that_does_not_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    refusal("CUDAExecutionProvider does not start", model=convolution().SerializeToString(), provider="cuda")


# --- memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_run_holds_only_live_tensors_and_returns_memory(tmp_path: Path) -> None:
    """Tensors of 16 sizes one after the other, twice: the largest takes 33 MB, one of each size 285 MB."""
    nodes = []
    for index, channels in enumerate([*range(8, 129, 8)] * 2):
        nodes.append(helper.make_node("Concat", [f"x{index}"] * channels, [f"wide{index}"], axis=1))
        nodes.append(helper.make_node("ReduceMax", [f"wide{index}", "axis"], [f"x{index + 1}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "H", "W"]) for name in ("x0", "x32")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(np.array([1]), "axis")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "chain.onnx")
    script = """
import re, sys
from pathlib import Path
import numpy as np
from ccnet.runtime.backends.arena import shared_arena
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend

def megabytes(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

backend = OnnxRuntimeBackend(Path(sys.argv[1]), threads=1)
before = megabytes("VmRSS")
backend.run({"x0": np.zeros((1, 1, 256, 256), np.float32)})
print(megabytes("VmHWM") - before, megabytes("VmRSS") - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "chain.onnx")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    peak, after = map(float, result.stdout.split())
    assert peak < 120
    assert after < 30


def test_cuda_provider_is_told_the_gpu_and_not_to_use_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, data: bytes, options: Any, *, providers: Any, **others: Any) -> None:
            asked.extend(providers)
            super().__init__(data, options, providers=["CPUExecutionProvider"], **others)

        def get_providers(self) -> list[str]:
            return [name for name, _ in asked]

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    OnnxRuntimeBackend(convolution().SerializeToString(), provider="cuda", device=1).close()
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}), ("CPUExecutionProvider", {})]


@pytest.mark.parametrize("registered", [True, False])
def test_compiled_operators_run_with_and_without_an_arena_of_their_own(
    registered: bool, artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may have registered an arena for all sessions before; then a session keeps its own."""
    if not registered:
        monkeypatch.setattr(module, "shared_arena", lambda ort: None)
    decode = select(ArtifactFolder.open(artifacts[1])).decode
    feeds = {
        "rgb": np.zeros((1, 3, 32, 32), np.float32),
        "context": np.zeros((1, artifacts[0].context_size), np.float32),
    }
    with OnnxRuntimeBackend(artifacts[1] / decode.file) as backend:
        assert np.isfinite(backend.run(feeds)["cube"]).all()
    assert shared_arena(onnxruntime) is not None


def test_only_one_thread_trims_the_arena_at_a_time() -> None:
    arena = shared_arena(onnxruntime)
    assert arena is not None
    running, most = 0, 0

    class Session:
        def run_with_iobinding(self, *_: object) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(0.001)
            running -= 1

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(arena, "_session", Session())
        [*pool.map(lambda _: arena.trim(), range(64))]
    assert most == 1
