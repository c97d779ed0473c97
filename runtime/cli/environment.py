"""The facts on this machine that an issue report needs.

Each fact is read on its own. On a strange machine, the value of a fact that cannot be read is the reason why.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ccnet import __version__
from ccnet.contract import CCNetError, available_cores, cpu_name, install_command, kernel_library_path
from ccnet.runtime.backends import architectures, onnxruntime, trt_api
from ccnet.runtime.backends.select import best_backend
from ccnet.runtime.gpu import cuda

Facts = dict[str, str]

PACKAGES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "typer", "rich", "pillow", "opencv-python-headless", "opencv-python"),
    *("h5py", "matplotlib", "zarr", "pyzmq", "prometheus-client", "torch", "triton", "safetensors", "spectral"),
    *("tensorboard", "onnx", "onnxscript", "onnx-ir", "openvino"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-rtx-cu13-bindings"),
)
"""Names of the distributions whose versions matter."""

PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
"""Backend → the execution provider of ONNX Runtime that it needs."""

TENSORRT: dict[str, trt_api.Name] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backend → the Python package of TensorRT that it needs."""

_PROC_DRIVER = Path("/proc/driver/nvidia/version")
_MEMINFO = Path("/proc/meminfo")


def describe_environment() -> dict[str, Facts]:
    """Return the environment as section → name → value.

    It imports ONNX Runtime and TensorRT where they are installed, and never torch.
    """
    backends: dict[str, Callable[[], str]] = {
        **{name: partial(_onnxruntime_backend, provider) for name, provider in PROVIDERS.items()},
        **{name: partial(_tensorrt_backend, package) for name, package in TENSORRT.items()},
    }
    return {
        "system": _facts(
            {
                "ccnet": lambda: __version__,
                "Python": lambda: f"{platform.python_version()} ({platform.python_implementation()})",
                "OS": platform.platform,
                "architecture": platform.machine,
                "CPU": cpu_name,
                "cores": lambda: f"{available_cores()} available",
                "memory": _memory,
            }
        ),
        "NVIDIA": _facts({"driver": _driver, "GPUs": lambda: ", ".join(cuda.gpus())}),
        "backends": _facts(backends),
        "backend auto": _facts({"with all engines": lambda: ": ".join(best_backend())}),
        "ONNX Runtime": _facts({"providers": lambda: ", ".join(_onnxruntime().get_available_providers())}),
        "compiled kernels": _facts({"file": _kernel_file, "SIMD": _simd, "ONNX Runtime operators": _operators}),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _memory() -> str:
    """Return the size of the main memory, and on Linux how much of it is available, in GB."""
    if _MEMINFO.is_file():
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
        total, available = (kilobytes[key] / 1e6 * 1.024 for key in ("MemTotal:", "MemAvailable:"))
        return f"{total:.1f} GB, {available:.1f} GB available"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB"


def _facts(read: dict[str, Callable[[], str]]) -> Facts:
    return {name: _read(function) for name, function in read.items()}


def _read(function: Callable[[], str]) -> str:
    """Return a fact in one line, or why it is unknown."""
    try:
        return " ".join(function().split())
    except CCNetError as error:
        return f"no: {_one_line(error)}"
    except Exception as error:  # a report from a strange machine is worth more than any single fact in it
        return f"unknown: {type(error).__name__}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    except Exception as error:  # its metadata may be damaged
        return f"unknown: {type(error).__name__}: {_one_line(error)}"


def _driver() -> str:
    """Return the version of NVIDIA's driver and the newest CUDA that it supports."""
    library, version = cuda.driver(), ctypes.c_int()
    status = library.cuDriverGetVersion(ctypes.byref(version))
    supported = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}" if not status else f"CUDA error {status}"
    return f"{supported}; {_PROC_DRIVER.read_text().splitlines()[0]}" if _PROC_DRIVER.is_file() else supported


def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise CCNetError(f"onnxruntime cannot be loaded ({_one_line(error)}): {onnxruntime.INSTALL}") from error


def _onnxruntime_backend(provider: str) -> str:
    """Return that the backend can run here; CCNetError with the reason why it cannot."""
    if provider not in _onnxruntime().get_available_providers():
        raise CCNetError(f"ONNX Runtime has no {provider}: pip uninstall onnxruntime, then {install_command('cuda')}")
    if provider != "CPUExecutionProvider":
        cuda.gpus()
    return "can run"


def _tensorrt_backend(package: trt_api.Name) -> str:
    """Return that the backend can run here; CCNetError with the reason why it cannot."""
    title = trt_api.title(package)
    if why := architectures.why_unsupported(package, cuda.gpus()[0]):
        raise CCNetError(f"{package}: {why}")
    return f"can run ({title})"


def _kernel_library() -> Path:
    path = kernel_library_path()
    if path is None:
        raise CCNetError("ccnet was installed without a C compiler: install one, then install ccnet again")
    return path


def _kernel_file() -> str:
    return _kernel_library().name


def _simd() -> str:
    """Return the width of the vector registers that the kernels use on this CPU."""
    library = ctypes.CDLL(str(_kernel_library()))
    return f"{32 * library.ccnet_simd_floats()} bits"


def _operators() -> str:
    """Return that ONNX Runtime accepts the package's operators; an error if it does not."""
    _onnxruntime().SessionOptions().register_custom_ops_library(str(_kernel_library()))
    return "load"
