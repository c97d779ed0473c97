"""The part of TensorRT's Python interface that ccnet uses: it exists, loads, and its messages become one line."""

from __future__ import annotations

import ast
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from tests.requirements import needs_rtx

SURFACE: dict[str, set[str]] = {
    "Builder": {"create_network", "create_builder_config", "create_optimization_profile", "build_serialized_network"},
    "BuilderFlag": {"TF32", "VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT"},
    "DataType": {"FLOAT", "HALF", "INT64", "INT32", "INT8", "UINT8", "BOOL", "name"},
    "IBuilderConfig": {
        "set_memory_pool_limit",
        "set_preview_feature",
        "add_optimization_profile",
        "progress_monitor",
        "create_timing_cache",
        "set_timing_cache",
        "set_flag",
        "clear_flag",
        "hardware_compatibility_level",
        "profiling_verbosity",
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
        "device_memory_size_v2",
    },
    "IExecutionContext": {
        "set_input_shape",
        "get_tensor_shape",
        "set_tensor_address",
        "update_device_memory_size_for_shapes",
        "set_device_memory",
        "execute_async_v3",
    },
    "ExecutionContextAllocationStrategy": {"USER_MANAGED"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS"},
    "IHostMemory": set(),
    "ILayer": {"num_outputs", "get_output"},
    "ILogger": {"Severity", "log"},
    "INetworkDefinition": {
        *("num_layers", "num_inputs", "num_outputs", "get_layer", "get_input", "get_output"),
        *("add_reduce", "mark_output"),
    },
    "IOptimizationProfile": {"set_shape"},
    "IProgressMonitor": {"phase_start", "phase_finish", "step_complete"},
    "ITensor": {"name", "dtype", "shape"},
    "ITimingCache": {"serialize"},
    "MemoryPoolType": {"WORKSPACE"},
    "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"},
    "OnnxParserRefitter": {"refit_from_bytes"},
    "OnnxParser": {"parse", "num_errors", "get_error"},
    "PreviewFeature": set(),  # RUNTIME_ACTIVATION_RESIZE_10_10 is set where it is
    "ProfilingVerbosity": {"DETAILED"},
    "ParserError": {"code", "desc", "node_name", "node_operator"},
    "ReduceOperation": {"SUM"},
    "Refitter": {"refit_cuda_engine"},
    "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
    "TensorIOMode": {"INPUT"},
    "TensorLocation": {"DEVICE"},
}
"""Class → what is used of it: all of TensorRT that ccnet knows, present from 10.3 to 11.x."""

RTX_ONLY: dict[str, set[str]] = {
    "CudaGraphStrategy": {"WHOLE_GRAPH_CAPTURE"},
    "ComputeCapability": {"SM75", "SM80", "SM121"},
    "IBuilderConfig": {"num_compute_capabilities", "set_compute_capability"},
    "ICudaEngine": {"create_runtime_config"},
    "DynamicShapesKernelSpecializationStrategy": {"EAGER"},
    "IRuntimeConfig": {
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy",
        "create_runtime_cache",
        "set_runtime_cache",
    },
    "IRuntimeCache": {"deserialize", "serialize"},
}

REMOVED = {
    *("FP16", "BF16", "FP8", "INT4", "FP4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"),
    *("EXPLICIT_BATCH", "precision", "set_output_type", "set_dynamic_range", "dynamic_range", "device_memory_size"),
    *("int8_calibrator", "IInt8Calibrator", "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"),
    *("IAlgorithmSelector", "algorithm_selector", "platform_has_fast_fp16", "platform_has_fast_int8"),
}
"""Gone in 11.0. (BuilderFlag.INT8 went too; DataType.INT8 stays.)"""


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_every_used_tensorrt_name_exists(name: trt.Name) -> None:
    if name not in trt.available():
        pytest.skip(f"{name} is not installed")
    module = trt.load(name)
    for surface in (SURFACE, RTX_ONLY if name == "tensorrt_rtx" else {}):
        for owner, names in surface.items():
            assert not {one for one in names if not hasattr(getattr(module, owner), one)}, owner
    assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"} <= set(module.ILogger.Severity.__members__)


def test_no_used_name_is_removed_in_tensorrt_11() -> None:
    assert not REMOVED & {*SURFACE, *(name for names in SURFACE.values() for name in names)}


def test_every_tensorrt_name_in_the_sources_is_listed() -> None:
    """Every ``module.X`` of the sources is listed, and no removed name is touched in any way."""
    folder = Path(trt.__file__).resolve().parent
    engine = folder.parents[1] / "export/engine"
    sources = [folder / "trt_api.py", folder / "trt_engine.py", *engine.glob("*.py")]
    sources.remove(engine / "plan.py")  # its ``precision`` is another option, and it holds no TensorRT object
    taken = [
        node for path in sources for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    ]
    modules = {node.attr for node in taken if isinstance(node.value, ast.Name) and node.value.id == "module"}
    assert modules - {"__version__", "__name__"} <= {*SURFACE, *RTX_ONLY}
    assert not REMOVED & {node.attr for node in taken}


def importing(monkeypatch: pytest.MonkeyPatch, found: Callable[[str], Any]) -> None:
    monkeypatch.setattr(importlib, "import_module", found)


def absent(name: str) -> ModuleType:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("name", "remedy"), [("tensorrt", "JetPack"), ("tensorrt_rtx", '".[rtx]"')])
def test_missing_module_names_the_extra(monkeypatch: pytest.MonkeyPatch, name: trt.Name, remedy: str) -> None:
    importing(monkeypatch, absent)
    with pytest.raises(CCNetError, match="is not installed") as caught:
        trt.load(name)
    assert remedy in str(caught.value)
    assert trt.available() == []


@pytest.mark.usefixtures("fresh")
def test_module_that_cannot_load_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_bindings_without_the_main_package_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings: Any = SimpleNamespace(__version__="1.7.1.116")
    importing(monkeypatch, lambda name: bindings if name == "tensorrt_rtx_bindings" else absent(name))
    assert trt.load("tensorrt_rtx") is bindings


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("11.4.0.106", (11, 4, 0, 106)), ("10.3.0.post1", (10, 3, 0)), ("10.0.0b6", (10, 0, 0)), ("1.7+cu13", (1, 7))],
)
def test_version_is_parsed_to_numbers(text: str, numbers: tuple[int, ...]) -> None:
    module = ModuleType("tensorrt")
    module.__dict__["__version__"] = text
    assert trt.version(module) == numbers


def test_one_line_keeps_only_the_reason() -> None:
    noisy = """Invalid Node - t
ITensor::getDimensions: Error Code 4: API Usage Error (t: has type UInt8. In checkType at /_src/a/b.cpp:456)
[x.cpp::catch::250] Error Code 1: Cuda Runtime (In catch at /_src/x.cpp:250 (cudaError 35: driver is insufficient))
ModelImporter.cpp:142: --- Begin node ---
Node name: t"""
    assert trt.one_line(noisy) == "ITensor::getDimensions: Error Code 4: API Usage Error (t: has type UInt8)"


def test_one_line_keeps_a_lone_driver_error() -> None:
    assert "cudaError 35" in trt.one_line("Cuda Runtime (cudaError 35: insufficient)\n")
    assert "cudaError 2:" in trt.one_line("Cuda Runtime (cudaError 2: out of memory)\nother")
    assert len(trt.one_line("x" * 5000)) < 500


@needs_rtx
@pytest.mark.parametrize(("name", "dtype"), [("HALF", np.float16), ("UINT8", np.uint8), ("FLOAT", np.float32)])
def test_tensorrt_dtype_becomes_numpys(name: str, dtype: type[np.generic]) -> None:
    assert trt.dtype(getattr(trt.load("tensorrt_rtx").DataType, name)) == dtype


@needs_rtx
def test_dtype_that_numpy_lacks_is_refused() -> None:
    with pytest.raises(CCNetError, match="BF16, expected one of FLOAT"):
        trt.dtype(trt.load("tensorrt_rtx").DataType.BF16)


@needs_rtx
def test_tensorrts_log_goes_to_pythons_logging(caplog: pytest.LogCaptureFixture) -> None:
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
