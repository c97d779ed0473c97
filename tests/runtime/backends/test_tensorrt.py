"""The TensorRT backend over a driver and an engine made of numpy.

Engines on a real GPU are run in ``tests/export/engine/test_builder.py``, which builds them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends import trt_engine
from ccnet.runtime.backends.tensorrt import TensorRTBackend
from tests.runtime.gpu.driver_double import Driver

SCRATCH = 100
"""Scratch memory that the engine needs for each pixel, bytes."""


class Engine:
    """cube = 2 · rgb + Σ context; rgb is float16 (1, 3, H, W) with H, W from 16 to 64. Its own execution context."""

    shapes: ClassVar[dict[str, Any]] = {"rgb": (1, 3, -1, -1), "context": (1, 4), "cube": (1, 3, -1, -1)}
    dtypes: ClassVar = {"rgb": "HALF", "context": "FLOAT", "cube": "FLOAT"}

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.given: dict[str, tuple[int, ...]] = {}
        self.address: dict[str, int] = {}
        self.shapings = 0
        self.works = self.opens = self.computes_scratch = True
        self.reason = "its reason"
        self.weights = b""
        self.runtime: Any = None
        self.config: Any = None
        self.scratch = (0, 0)
        self.num_io_tensors = 3
        self.device_memory_size_v2 = SCRATCH * 64 * 64

    def refit(self, graph: bytes) -> bool:
        self.weights = graph
        return graph == b"graph"

    def create_execution_context(self, config: Any) -> Engine | None:
        """Return itself; a strategy is TensorRT's argument, a configuration that of TensorRT-RTX."""
        self.config = config
        assert config == "USER_MANAGED" or config.strategy == "USER_MANAGED"
        return self if self.opens else None

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH * int(np.prod(self.given["rgb"][2:])) if self.computes_scratch else 0

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def create_runtime_config(self) -> Any:
        cache = SimpleNamespace(
            deserialize=lambda data: data.startswith(b"kernels"), serialize=lambda: b"kernels and more"
        )
        config = SimpleNamespace(create_runtime_cache=lambda: cache, cache=None)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
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
        tensors = [
            (self.address[name], self.get_tensor_shape(name), trt.dtype(self.get_tensor_dtype(name)))
            for name in self.shapes
        ]
        address, size = self.scratch
        assert size >= self.update_device_memory_size_for_shapes()

        def kernel() -> None:
            self.driver.view(address, (size,))[...] = 255
            rgb, context, cube = (self.driver.view(*tensor) for tensor in tensors)
            cube[...] = 2 * rgb.astype(np.float32) + context.sum()

        self.driver.enqueue(stream, kernel, [address, *(place for place, _, _ in tensors)], "the engine")
        return self.works


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Engine:
    """Return the engine that b"plan" deserializes to; other bytes give None, as in TensorRT."""
    engine = Engine(driver)
    engine.runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine if data == b"plan" else None)
    module = SimpleNamespace(
        __version__="1.7.1.116",
        Runtime=lambda log: engine.runtime,
        Refitter=lambda engine, log: SimpleNamespace(refit_cuda_engine=lambda: True),
        OnnxParserRefitter=lambda refitter, log: SimpleNamespace(refit_from_bytes=engine.refit),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="EAGER"),
        CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        TensorLocation=SimpleNamespace(DEVICE="DEVICE"),
        TensorIOMode=SimpleNamespace(INPUT="INPUT"),
    )
    monkeypatch.setattr(trt, "load", lambda name: module)
    monkeypatch.setattr(trt, "log", lambda name: SimpleNamespace(forget=lambda: None, reason=lambda: engine.reason))
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
def test_outputs_are_correct_and_belong_to_the_caller() -> None:
    with TensorRTBackend(b"plan", backend="tensorrt_rtx") as backend:
        assert backend.name == "tensorrt_rtx 1.7.1 (cuda:0)"
        fed = [feeds(size, size + 16, size) for size in (32, 16, 48, 16)]
        outputs = [backend.run(one)["cube"] for one in fed]
    for one, cube in zip(fed, outputs, strict=True):
        np.testing.assert_array_equal(cube, answer(one))


def test_device_memory_is_allocated_once_and_only_grows(engine: Engine, driver: Driver) -> None:
    with TensorRTBackend(b"plan", backend="tensorrt_rtx") as backend:
        backend.run(feeds())
        made, shapings = driver.calls["cuMemAlloc_v2"], engine.shapings
        assert made == 1 + 3, "scratch memory and the tensors"
        backend.run(feeds(seed=1))
        assert (driver.calls["cuMemAlloc_v2"], engine.shapings) == (made, shapings)
        backend.run(feeds(16, 16))
        assert driver.calls["cuMemAlloc_v2"] == made
        assert engine.shapings > shapings
        backend.run(feeds(64, 64))
        assert driver.calls["cuMemAlloc_v2"] == made + 3, "scratch, rgb and cube grew, context did not"
        assert len(driver.alive) == 1 + 2 * 3 + 1


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
def test_invalid_input_is_named(change: dict[str, npt.NDArray[Any]], expected: str) -> None:
    with TensorRTBackend(b"plan") as backend:
        with pytest.raises(CCNetError, match=expected):
            backend.run({**feeds(), **change})
        backend.run(feeds())


def test_failed_run_reports_tensorrts_reason(engine: Engine) -> None:
    with TensorRTBackend(b"plan") as backend:
        engine.works = False
        with pytest.raises(CCNetError, match="failed to run: its reason"):
            backend.run(feeds())


def test_out_of_memory_suggests_smaller_tiles_and_the_backend_still_runs(engine: Engine, driver: Driver) -> None:
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
    backend.close()
    backend.close()
    assert not driver.alive
    assert driver.calls["cuCtxPushCurrent_v2"] == driver.calls["cuCtxPopCurrent_v2"]
    with pytest.raises(CCNetError, match="is closed"):
        backend.run(feeds())


def test_invalid_engine_is_refused_and_frees_everything(engine: Engine, driver: Driver) -> None:
    with pytest.raises(
        CCNetError, match=r"cannot load the engine on Orin \(sm_87, 16 SM\): its reason; build it for this"
    ):
        TensorRTBackend(b"rubbish")
    assert not driver.alive


def test_damaged_tensor_names_are_refused_and_free_everything(
    engine: Engine, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "get_tensor_name", lambda index: b"rgb\xe1".decode())
    with pytest.raises(CCNetError, match="damaged names in the engine: build it again"):
        TensorRTBackend(b"plan")
    assert not driver.alive


def test_stripped_engine_gets_its_graphs_weights(engine: Engine, driver: Driver) -> None:
    with TensorRTBackend(b"plan", weights=b"graph") as backend:
        assert engine.weights == b"graph"
        backend.run(feeds())
    with pytest.raises(CCNetError, match="cannot give the engine its graph's weights: its reason"):
        TensorRTBackend(b"plan", weights=b"another graph")
    assert not driver.alive


def test_host_code_of_an_engine_runs_only_on_request(engine: Engine) -> None:
    TensorRTBackend(b"plan").close()
    assert engine.runtime.engine_host_code_allowed is False
    TensorRTBackend(b"plan", compatible=True).close()
    assert engine.runtime.engine_host_code_allowed is True


@pytest.mark.skipif(trt.has_gpu(), reason="there is a GPU")
def test_engine_without_a_gpu_is_refused() -> None:
    with pytest.raises(CCNetError, match=r"no CUDA driver|finds no GPU|cuInit failed"):
        TensorRTBackend(b"plan", backend="tensorrt_rtx")


def test_runtime_cache_is_read_and_written(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    path.write_bytes(b"kernels")
    with TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=path) as backend:
        backend.run(feeds())
        assert engine.config.cache is not None
    assert path.read_bytes() == b"kernels and more"


@pytest.mark.usefixtures("engine")
def test_foreign_runtime_cache_is_replaced_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kernels"
    path.write_bytes(b"of another version")
    with caplog.at_level(logging.WARNING, trt_engine.__name__):
        TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=path).close()
    assert "will be replaced" in caplog.text
    assert path.read_bytes() == b"kernels and more"


@pytest.mark.usefixtures("engine")
def test_unwritable_runtime_cache_still_frees_everything(tmp_path: Path, driver: Driver) -> None:
    (tmp_path / "file").touch()
    backend = TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=tmp_path / "file" / "kernels")
    with pytest.raises(CCNetError, match="file"):
        backend.close()
    assert not driver.alive


@pytest.mark.usefixtures("engine")
def test_tensorrt_has_no_runtime_cache(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match="leave runtime_cache out"):
        TensorRTBackend(b"plan", backend="tensorrt", runtime_cache=tmp_path / "kernels")


def test_kernels_are_compiled_for_each_shape_at_once_and_kept_before_close(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    with TensorRTBackend(b"plan", backend="tensorrt_rtx", runtime_cache=path) as backend:
        assert engine.config.dynamic_shapes_kernel_specialization_strategy == "EAGER"
        assert not path.exists()
        for size, is_new in ((32, True), (32, False), (16, True), (32, False)):
            backend.run(feeds(size, size))
            assert path.exists() == is_new, size
            path.unlink(missing_ok=True)
    assert path.exists()
    TensorRTBackend(b"plan", backend="tensorrt_rtx").close()
    assert engine.config.dynamic_shapes_kernel_specialization_strategy == "EAGER", "in a folder for reading, too"
    assert engine.config.cuda_graph_strategy == "WHOLE_GRAPH_CAPTURE"
    TensorRTBackend(b"plan").close()
    assert engine.config == "USER_MANAGED", "TensorRT compiled its kernels when it built"
