"""The TensorRT side of the runtime: its API surface, and the backend over a driver and an engine made of numpy.

Engines on a real GPU are run in ``tests/export/engine/test_builder_gpu.py``, which builds them.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import cuda
from ccnet.runtime.backends import tensorrt as tensorrt_backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.tensorrt import TensorRTBackend

SURFACE: dict[str, set[str]] = {
    "Builder": {"create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"},
    "BuilderFlag": {"VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT"},
    "DataType": {"FLOAT", "HALF", "INT64", "INT32", "INT8", "UINT8", "BOOL", "name"},
    "IBuilderConfig": {
        "set_memory_pool_limit",
        "add_optimization_profile",
        "progress_monitor",
        "create_timing_cache",
        "set_timing_cache",
        "set_flag",
        "hardware_compatibility_level",
    },
    "ICudaEngine": {
        "create_execution_context",
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_shape",
        "get_tensor_location",
        "get_tensor_profile_shape",
    },
    "IExecutionContext": {"set_input_shape", "get_tensor_shape", "set_tensor_address", "execute_async_v3"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS"},
    "IHostMemory": set(),
    "ILayer": {"num_outputs", "get_output"},
    "ILogger": {"Severity", "log"},
    "INetworkDefinition": {"num_layers", "num_inputs", "num_outputs", "get_layer", "get_input", "get_output"},
    "IOptimizationProfile": {"set_shape"},
    "IProgressMonitor": {"phase_start", "phase_finish", "step_complete"},
    "ITensor": {"name", "dtype", "shape"},
    "ITimingCache": {"serialize"},
    "MemoryPoolType": {"WORKSPACE"},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"},
    "OnnxParserRefitter": {"refit_from_bytes"},
    "OnnxParser": {"parse", "num_errors", "get_error"},
    "ParserError": {"code", "desc", "node_name", "node_operator"},
    "Refitter": {"refit_cuda_engine"},
    "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
    "TensorIOMode": {"INPUT"},
    "TensorLocation": {"DEVICE"},
}
"""Class → what is used of it: all of TensorRT that ccnet knows, present from 10.3 to 11.x."""

RTX_ONLY: dict[str, set[str]] = {
    "ICudaEngine": {"create_runtime_config"},
    "IRuntimeConfig": {"create_runtime_cache", "set_runtime_cache"},
    "IRuntimeCache": {"deserialize", "serialize"},
}

REMOVED = {
    *("FP16", "BF16", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"),
    *("EXPLICIT_BATCH", "precision", "set_output_type", "set_dynamic_range", "dynamic_range", "device_memory_size"),
    *("int8_calibrator", "IInt8Calibrator", "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"),
    *("IAlgorithmSelector", "algorithm_selector", "platform_has_fast_fp16", "platform_has_fast_int8"),
}
"""Gone in 11.0. (BuilderFlag.INT8 went too; DataType.INT8 stays.)"""

needs_rtx = pytest.mark.skipif(
    "tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed: pip install 'ccnet-hsi[rtx]'"
)


# --- API surface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_all_that_is_used_exists(name: trt.Name) -> None:
    if name not in trt.available():
        pytest.skip(f"{name} is not installed")
    module = trt.load(name)
    for surface in (SURFACE, RTX_ONLY if name == "tensorrt_rtx" else {}):
        for owner, names in surface.items():
            assert not {one for one in names if not hasattr(getattr(module, owner), one)}, owner
    assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"} <= set(module.ILogger.Severity.__members__)


def test_nothing_used_is_gone_in_11() -> None:
    assert not REMOVED & {*SURFACE, *(name for names in SURFACE.values() for name in names)}


def test_the_surface_is_complete() -> None:
    """Every ``module.X`` of the sources is listed, and no removed name is touched in any way."""
    folder = Path(cuda.__file__).resolve().parent
    sources = [folder / "trt_api.py", folder / "tensorrt.py", *folder.parents[1].glob("export/engine/*.py")]
    taken = [
        node for path in sources for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    ]
    modules = {node.attr for node in taken if isinstance(node.value, ast.Name) and node.value.id == "module"}
    assert modules - {"__version__", "__name__"} <= set(SURFACE)
    assert not REMOVED & {node.attr for node in taken}


# --- loading, versions, messages -------------------------------------------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[None]:
    """Modules and GPUs are looked for again, and after the test once more."""
    caches = (trt.load, cuda.gpus)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def importing(monkeypatch: pytest.MonkeyPatch, found: Callable[[str], Any]) -> None:
    monkeypatch.setattr(importlib, "import_module", found)


def absent(name: str) -> ModuleType:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("name", "remedy"), [("tensorrt", "JetPack"), ("tensorrt_rtx", "ccnet-hsi[rtx]")])
def test_a_missing_module_names_the_extra(monkeypatch: pytest.MonkeyPatch, name: trt.Name, remedy: str) -> None:
    importing(monkeypatch, absent)
    with pytest.raises(CCNetError, match="is not installed") as caught:
        trt.load(name)
    assert remedy in str(caught.value)
    assert trt.available() == []


@pytest.mark.usefixtures("fresh")
def test_a_module_that_cannot_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    importing(monkeypatch, broken)
    with pytest.raises(CCNetError, match=r"installed but cannot be loaded \(libnvinfer.so.10"):
        trt.load("tensorrt")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("version", "good"), [("8.6.1", False), ("10.2.0", False), ("10.3.0", True), ("11.4", True)])
def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch, version: str, good: bool) -> None:
    importing(monkeypatch, lambda name: SimpleNamespace(__version__=version, __name__=name))
    if good:
        assert trt.title("tensorrt") == f"tensorrt {version}"
    else:
        with pytest.raises(CCNetError, match=r"expected 10\.3 or later"):
            trt.load("tensorrt")


@pytest.mark.usefixtures("fresh")
def test_the_bare_bindings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings: Any = SimpleNamespace(__version__="1.7.1.116")
    importing(monkeypatch, lambda name: bindings if name == "tensorrt_rtx_bindings" else absent(name))
    assert trt.load("tensorrt_rtx") is bindings


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("11.4.0.106", (11, 4, 0, 106)), ("10.3.0.post1", (10, 3, 0)), ("10.0.0b6", (10, 0, 0)), ("1.7+cu13", (1, 7))],
)
def test_version(text: str, numbers: tuple[int, ...]) -> None:
    module = ModuleType("tensorrt")
    module.__dict__["__version__"] = text
    assert trt.version(module) == numbers


def test_one_line_keeps_the_reason_only() -> None:
    noisy = """Invalid Node - t
ITensor::getDimensions: Error Code 4: API Usage Error (t: has type UInt8. In checkType at /_src/a/b.cpp:456)
[x.cpp::catch::250] Error Code 1: Cuda Runtime (In catch at /_src/x.cpp:250 (cudaError 35: driver is insufficient))
ModelImporter.cpp:142: --- Begin node ---
Node name: t"""
    assert trt.one_line(noisy) == "ITensor::getDimensions: Error Code 4: API Usage Error (t: has type UInt8)"


def test_one_line_keeps_a_driver_error_that_is_all_there_is() -> None:
    assert "cudaError 35" in trt.one_line("Cuda Runtime (cudaError 35: insufficient)\n")
    assert "cudaError 2:" in trt.one_line("Cuda Runtime (cudaError 2: out of memory)\nother")
    assert len(trt.one_line("x" * 5000)) < 500


@needs_rtx
@pytest.mark.parametrize(("name", "dtype"), [("HALF", np.float16), ("UINT8", np.uint8), ("FLOAT", np.float32)])
def test_dtype(name: str, dtype: type[np.generic]) -> None:
    assert trt.dtype(getattr(trt.load("tensorrt_rtx").DataType, name)) == dtype


@needs_rtx
def test_a_type_that_numpy_lacks_is_refused() -> None:
    with pytest.raises(CCNetError, match="BF16, expected one of FLOAT"):
        trt.dtype(trt.load("tensorrt_rtx").DataType.BF16)


@needs_rtx
def test_tensorrts_log_becomes_pythons(caplog: pytest.LogCaptureFixture) -> None:
    logger = trt.log("tensorrt_rtx")
    severity = trt.load("tensorrt_rtx").ILogger.Severity
    assert logger is trt.log("tensorrt_rtx")
    logger.forget()
    with caplog.at_level(logging.DEBUG, "ccnet.runtime.backends.trt_api"):
        logger.log(severity.ERROR, "first 100 %s")
        logger.log(severity.INTERNAL_ERROR, "second")
        logger.log(severity.WARNING, "third")
        logger.log(severity.VERBOSE, "fourth")
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2 + [logging.WARNING, logging.DEBUG]
    assert logger.reason() == "first 100 %s; second"
    logger.forget()
    assert logger.reason() == ""


# --- the driver ------------------------------------------------------------------------------------------------------


class Driver:
    """libcuda over host memory: what is alive in it, and how often each function was called."""

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.contexts = 0
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, int] = {}
        self.gpus = 1
        self.known: dict[str, Callable[..., object]] = {
            "cuDeviceGetCount": lambda count: setattr(count.contents, "value", self.gpus),
            "cuDeviceGetName": lambda name, size, device: setattr(name, "value", b"Orin"),
            "cuDeviceGetAttribute": lambda value, key, device: setattr(value.contents, "value", {75: 8, 76: 7}[key]),
            "cuDevicePrimaryCtxRetain": lambda context, device: self._count(1),
            "cuDevicePrimaryCtxRelease_v2": lambda device: self._count(-1),
            "cuGetErrorName": self._name,
            "cuStreamCreate": lambda stream, flags: self._allocate(stream, 1),
            "cuStreamDestroy_v2": lambda stream: self.alive.pop(stream),
            "cuMemAlloc_v2": self._allocate,
            "cuMemHostAlloc": lambda host, size, flags: self._allocate(host, size),
            "cuMemFree_v2": lambda gpu: self.alive.pop(gpu.value),
            "cuMemFreeHost": lambda host: self.alive.pop(host.value),
            "cuMemcpyHtoDAsync_v2": lambda gpu, host, size, stream: ctypes.memmove(gpu.value, host.value, size),
            "cuMemcpyDtoHAsync_v2": lambda host, gpu, size, stream: ctypes.memmove(host.value, gpu.value, size),
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*args: Any) -> int:
            self.calls[name] += 1
            if name in self.known and name not in self.failing:
                self.known[name](*args)
            return self.failing.get(name, 0)

        return function

    def _allocate(self, address: Any, size: int) -> None:
        block = ctypes.create_string_buffer(size)
        address.contents.value = ctypes.addressof(block)
        self.alive[ctypes.addressof(block)] = block

    def _count(self, change: int) -> None:
        self.contexts += change

    def _name(self, status: int, name: Any) -> None:
        name.contents.value = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 100: b"CUDA_ERROR_NO_DEVICE"}.get(status)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, fresh: None) -> Driver:
    driver = Driver()
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    return driver


def test_gpus_tell_name_and_architecture(driver: Driver) -> None:
    driver.gpus = 2
    assert cuda.gpus() == ("Orin (sm_87)", "Orin (sm_87)")
    assert trt.has_gpu()


@pytest.mark.usefixtures("fresh")
def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not trt.has_gpu()
    with pytest.raises(CCNetError, match=r"no CUDA driver.*onnxruntime"):
        cuda.gpus()


def test_no_device_is_no_gpu(driver: Driver) -> None:
    driver.gpus = 0
    assert not cuda.has_gpu()
    with pytest.raises(CCNetError, match="finds no GPU"):
        cuda.gpus()


def test_a_driver_that_does_not_start_says_why(driver: Driver) -> None:
    driver.failing["cuInit"] = 100
    assert not cuda.has_gpu()
    with pytest.raises(CCNetError, match="cuInit failed with CUDA_ERROR_NO_DEVICE"):
        cuda.gpus()


def test_an_absent_device_is_refused(driver: Driver) -> None:
    with pytest.raises(CCNetError, match=r"device is 1, expected 0 to 0: Orin \(sm_87\)"):
        cuda.Device(1)


# --- the backend -----------------------------------------------------------------------------------------------------


class Engine:
    """cube = 2 · rgb + Σ context; rgb is float16 (1, 3, H, W) with H, W from 16 to 64. Its own execution context."""

    shapes: ClassVar[dict[str, Any]] = {"rgb": (1, 3, -1, -1), "context": (1, 4), "cube": (1, 3, -1, -1)}
    dtypes: ClassVar = {"rgb": "HALF", "context": "FLOAT", "cube": "FLOAT"}

    def __init__(self) -> None:
        self.given: dict[str, tuple[int, ...]] = {}
        self.address: dict[str, int] = {}
        self.shapings = 0
        self.works = True
        self.weights = b""
        self.runtime: Any = None
        self.config: Any = None
        self.num_io_tensors = 3

    def refit(self, graph: bytes) -> bool:
        self.weights = graph
        return graph == b"graph"

    def create_execution_context(self, config: Any = None) -> Engine:
        self.config = config
        return self

    def create_runtime_config(self) -> Any:
        cache = SimpleNamespace(
            deserialize=lambda data: data.startswith(b"kernels"), serialize=lambda: b"kernels and more"
        )
        config = SimpleNamespace(create_runtime_cache=lambda: cache, cache=None)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "OUTPUT" if name == "cube" else "INPUT"

    def get_tensor_location(self, name: str) -> str:
        return "DEVICE"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtypes[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.given.get("rgb" if name == "cube" else name, self.shapes[name])
        return shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == "rgb", "only dynamic inputs have a profile of their own"
        return [(1, 3, 16, 16), (1, 3, 32, 32), (1, 3, 64, 64)]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapings += 1
        self.given[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.address[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream
        rgb, context, cube = (self._array(name) for name in self.shapes)
        cube[...] = 2 * rgb.astype(np.float32) + context.sum()
        return self.works

    def _array(self, name: str) -> npt.NDArray[Any]:
        shape, dtype = self.get_tensor_shape(name), trt.dtype(self.get_tensor_dtype(name))
        block = (ctypes.c_ubyte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.address[name])
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer=memoryview(block))
        return array


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Engine:
    """What deserializing b"plan" gives; anything else gives None, as in TensorRT."""
    engine = Engine()
    engine.runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine if data == b"plan" else None)
    module = SimpleNamespace(
        __version__="1.7.1.116",
        Runtime=lambda log: engine.runtime,
        Refitter=lambda engine, log: SimpleNamespace(refit_cuda_engine=lambda: True),
        OnnxParserRefitter=lambda refitter, log: SimpleNamespace(refit_from_bytes=engine.refit),
        TensorLocation=SimpleNamespace(DEVICE="DEVICE"),
        TensorIOMode=SimpleNamespace(INPUT="INPUT"),
    )
    monkeypatch.setattr(trt, "load", lambda name: module)
    monkeypatch.setattr(trt, "log", lambda name: SimpleNamespace(forget=lambda: None, reason=lambda: "its reason"))
    return engine


def feeds(height: int = 32, width: int = 48, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "rgb": rng.random((1, 3, height, width), np.float32).astype(np.float16),
        "context": rng.random((1, 4), np.float32),
    }


def answer(fed: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    cube: npt.NDArray[Any] = 2 * fed["rgb"].astype(np.float32) + fed["context"].sum()
    return cube


@pytest.mark.usefixtures("engine")
def test_outputs_are_right_and_the_callers_to_keep() -> None:
    with TensorRTBackend(b"plan", backend="tensorrt_rtx") as backend:
        assert backend.name == "tensorrt_rtx 1.7.1 (cuda:0)"
        fed = [feeds(size, size + 16, size) for size in (32, 16, 48, 16)]
        outputs = [backend.run(one)["cube"] for one in fed]
    for one, cube in zip(fed, outputs, strict=True):
        np.testing.assert_array_equal(cube, answer(one))


def test_memory_is_made_once_and_only_grows(engine: Engine, driver: Driver) -> None:
    with TensorRTBackend(b"plan", backend="tensorrt_rtx") as backend:
        backend.run(feeds())
        made, shapings = driver.calls["cuMemAlloc_v2"], engine.shapings
        assert made == 3
        backend.run(feeds(seed=1))
        assert (driver.calls["cuMemAlloc_v2"], engine.shapings) == (made, shapings)
        backend.run(feeds(16, 16))
        assert driver.calls["cuMemAlloc_v2"] == made
        assert engine.shapings > shapings
        backend.run(feeds(64, 64))
        assert driver.calls["cuMemAlloc_v2"] == made + 2, "rgb and cube grew, context did not"
        assert len(driver.alive) == 2 * 3 + 1


def test_inputs_need_not_be_contiguous(engine: Engine) -> None:
    fed = feeds()
    fed["rgb"] = np.ascontiguousarray(fed["rgb"].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with TensorRTBackend(b"plan") as backend:
        np.testing.assert_array_equal(backend.run(fed)["cube"], answer(fed))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rgb": np.zeros((1, 3, 32, 32), np.float32)}, "'rgb' has dtype float32, expected float16"),
        ({"rgb": np.zeros((1, 3, 80, 32), np.float16)}, r"'rgb' has shape \(1, 3, 80, 32\), the engine takes .* to "),
        ({"rgb": np.zeros((3, 32, 32), np.float16)}, r"'rgb' has shape \(3, 32, 32\)"),
        ({"context": np.zeros((1, 5), np.float32)}, r"'context' has shape \(1, 5\), the engine takes \(1, 4\)"),
        ({"depth": np.zeros(1, np.float32)}, "inputs are rgb, context, depth, the engine takes rgb, context"),
    ],
    ids=["dtype", "range", "rank", "fixed", "name"],
)
def test_a_bad_input_is_named(change: dict[str, npt.NDArray[Any]], expected: str) -> None:
    with TensorRTBackend(b"plan") as backend:
        with pytest.raises(CCNetError, match=expected):
            backend.run({**feeds(), **change})
        backend.run(feeds())


def test_a_failed_run_tells_tensorrts_reason(engine: Engine) -> None:
    with TensorRTBackend(b"plan") as backend:
        engine.works = False
        with pytest.raises(CCNetError, match="failed to run: its reason"):
            backend.run(feeds())


def test_no_memory_suggests_smaller_tiles_and_is_survived(engine: Engine, driver: Driver) -> None:
    with TensorRTBackend(b"plan") as backend:
        backend.run(feeds(16, 16))
        for function in ("cuMemHostAlloc", "cuMemAlloc_v2"):
            driver.failing[function] = 2
            with pytest.raises(CCNetError, match="CUDA_ERROR_OUT_OF_MEMORY: use smaller tiles"):
                backend.run(feeds(64, 64))
            driver.failing.clear()
        fed = feeds(64, 64)
        np.testing.assert_array_equal(backend.run(fed)["cube"], answer(fed))
    assert not driver.alive


def test_close_frees_everything_once(engine: Engine, driver: Driver) -> None:
    backend = TensorRTBackend(b"plan")
    backend.run(feeds())
    assert driver.contexts == 1
    backend.close()
    backend.close()
    assert (driver.alive, driver.contexts) == ({}, 0)
    assert driver.calls["cuCtxPushCurrent_v2"] == driver.calls["cuCtxPopCurrent_v2"]
    with pytest.raises(CCNetError, match="is closed"):
        backend.run(feeds())


def test_a_bad_engine_is_refused_and_leaves_nothing(engine: Engine, driver: Driver) -> None:
    with pytest.raises(CCNetError, match=r"cannot load the engine on Orin \(sm_87\): its reason; build it for this"):
        TensorRTBackend(b"rubbish")
    assert (driver.alive, driver.contexts) == ({}, 0)


def test_damaged_names_are_refused_and_leave_nothing(
    engine: Engine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "get_tensor_name", lambda index: b"rgb\xe1".decode())
    with pytest.raises(CCNetError, match="damaged names in the engine: build it again"):
        TensorRTBackend(b"plan")
    assert (driver.alive, driver.contexts) == ({}, 0)


def test_a_stripped_engine_gets_its_graphs_weights(engine: Engine, driver: Driver) -> None:
    with TensorRTBackend(b"plan", weights=b"graph") as backend:
        assert engine.weights == b"graph"
        backend.run(feeds())
    with pytest.raises(CCNetError, match="cannot give the engine its graph's weights: its reason"):
        TensorRTBackend(b"plan", weights=b"another graph")
    assert (driver.alive, driver.contexts) == ({}, 0)


def test_an_engines_own_code_runs_only_where_it_was_asked_for(engine: Engine) -> None:
    TensorRTBackend(b"plan").close()
    assert engine.runtime.engine_host_code_allowed is False
    TensorRTBackend(b"plan", compatible=True).close()
    assert engine.runtime.engine_host_code_allowed is True


@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(CCNetError, match=r"no CUDA driver|finds no GPU|cuInit failed"):
        TensorRTBackend(b"plan", backend="tensorrt_rtx")


def test_the_runtime_cache_is_read_and_written(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    path.write_bytes(b"kernels")
    with TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=path) as backend:
        backend.run(feeds())
        assert engine.config.cache is not None
    assert path.read_bytes() == b"kernels and more"


@pytest.mark.usefixtures("engine")
def test_a_foreign_runtime_cache_is_replaced_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kernels"
    path.write_bytes(b"of another version")
    with caplog.at_level(logging.WARNING, tensorrt_backend.__name__):
        TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=path).close()
    assert "will be replaced" in caplog.text
    assert path.read_bytes() == b"kernels and more"


@pytest.mark.usefixtures("engine")
def test_a_runtime_cache_that_cannot_be_written_still_frees_all(tmp_path: Path, driver: Driver) -> None:
    backend = TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=tmp_path / "absent" / "kernels")
    with pytest.raises(CCNetError, match="cannot be written"):
        backend.close()
    assert (driver.alive, driver.contexts) == ({}, 0)


@pytest.mark.usefixtures("engine")
def test_tensorrt_has_no_runtime_cache(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match="leave runtime_cache out"):
        TensorRTBackend(b"plan", backend="tensorrt", runtime_cache=tmp_path / "kernels")
