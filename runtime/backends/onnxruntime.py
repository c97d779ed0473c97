"""The backend that runs a graph with ONNX Runtime: numpy in, numpy out."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import os
import platform
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ccnet.contract import CCNetError, Closeable, core_quota, install_command, kernel_library_path
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError, is_out_of_memory

from .arena import ONE_NODE, SharedArena, shared_arena, shrinking_run_options

Provider = Literal["cpu", "cuda", "tensorrt"]

INSTALL = f'{install_command("cpu")}; with an NVIDIA GPU ".[gpu]"'
"""The command that installs ONNX Runtime, for error messages."""

_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Provider → ONNX Runtime's names: the first is required, the others run nodes that it does not know."""

_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""Options of ONNX Runtime's providers. TF32, on by default, rounds what convolutions read to 10 bits."""

_DTYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(uint8)": np.dtype(np.uint8)}

_REGISTRATION_LOCK = threading.Lock()  # the first session creates the operators' domain for all

_EXTERNAL = (b"\x08location", b"\x00location")
"""Protobuf's bytes of the key of a tensor in another file: a length of 8 (or 8 in a longer form), the word."""

_NATIVE_NODE = b":\x05ccnet"
"""Protobuf's bytes of a node's domain, for the compiled operators: field 7, a length of 5, the word."""


class OnnxRuntimeBackend(Closeable):
    """A graph on the CPU or a GPU. Use it in ``with`` or call ``close``; threads may share it.

    Attributes:
        name: Library, version and device, for reports.
        metadata: Metadata entries of the ONNX file.
    """

    name: str
    metadata: Mapping[str, str]

    def __init__(
        self, model: Path | bytes, *, provider: Provider = "cpu", threads: int | None = None, device: int = 0
    ) -> None:
        """Load a model. It may come from an untrusted source: nothing outside it is read.

        Args:
            model: Path or content of an ONNX file.
            provider: Device or library inside ONNX Runtime.
            threads: CPU threads of an operator; None is one per core.
            device: Index of the GPU, for the providers that use one.

        Raises:
            CCNetError: The file is not a whole ONNX model, keeps tensors in other files, or has inputs that are not
                float32 or uint8; or the provider is missing, which ONNX Runtime itself would ignore silently.
        """
        check_threads(threads)
        label, data = ("the ONNX model", model) if isinstance(model, bytes) else (str(model), _read(model))
        refuse_external(label, data)
        ort = _onnxruntime()
        self.name = library_name(provider, device)
        self._arena = shared_arena(ort) if provider == "cpu" and _NATIVE_NODE in data else None
        self._session: Any = _session(ort, label, data, provider, threads, device, self._arena)
        _open_backends.add(self)
        # Costs nothing measurable: of encode and decode, only the one that runs holds its memory
        self._options = shrinking_run_options(ort)
        try:
            self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
            self._inputs = {node.name: (_dtype(label, node), tuple(node.shape)) for node in self._session.get_inputs()}
            self._outputs = [node.name for node in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            raise CCNetError(f"{label}: names in it are damaged ({_one_line(error)}): export it again") from error

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            feeds: Input name → array.

        Returns:
            Output name → array.

        Raises:
            CCNetError: The backend is closed or failed (an OutOfMemoryError if memory ran out), or the message names
                an input whose dtype or shape is wrong.
        """
        session = self._session
        if session is None:
            raise CCNetError(f"{self.name} is closed: open the model again")
        if feeds.keys() != self._inputs.keys():
            raise CCNetError(f"inputs are {', '.join(feeds) or 'none'}, the graph takes {', '.join(self._inputs)}")
        for name, array in feeds.items():
            _check(name, array, *self._inputs[name])
        if self._arena:
            self._arena.trim()
        try:
            outputs = session.run(self._outputs, dict(feeds), self._options)
        except Exception as error:  # ONNX Runtime's errors have no common base
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            kind = OutOfMemoryError if is_out_of_memory(error) else CCNetError
            raise kind(f"{self.name} failed on {shapes} ({_one_line(error)}): try a smaller tile") from error
        return dict(zip(self._outputs, outputs, strict=True))

    def close(self) -> None:
        """Free everything; harmless when called twice."""
        self._session = None


_open_backends: weakref.WeakSet[OnnxRuntimeBackend] = weakref.WeakSet()


def _keep_sessions() -> None:
    """Keep the sessions of a forked process for ever: to delete one is to wait for threads that were not forked."""
    for backend in _open_backends:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend._session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


def library_name(provider: Provider, device: int = 0) -> str:
    """Return library, version and device of a provider, for reports; a CCNetError if ONNX Runtime is not there."""
    place = provider if provider == "cpu" else f"{provider}:{device}"
    return f"onnxruntime {_onnxruntime().__version__} ({place})"


def check_threads(threads: int | None) -> None:
    """Raise a CCNetError for a number of CPU threads that ONNX Runtime cannot have."""
    if threads is not None and threads < 1:
        raise CCNetError(f"threads is {threads}, expected at least 1, or None for one per core")


def refuse_external(label: str, data: bytes) -> None:
    """Raise a CCNetError for a model with tensors in other files: no hash covers them, and any path could be read."""
    if any(key in data for key in _EXTERNAL):  # a pattern would take five times as long
        raise CCNetError(f"{label}: keeps tensors in another file, expected all in one: export it again")


@functools.cache
def operators() -> Path | None:
    """Return the library with the network's parts as ONNX Runtime operators (``ccnet/csrc/onnxruntime``), if any.

    None: the package was installed without a C compiler, or the library does not load.
    """
    path = kernel_library_path()
    return path if path and _loads(path) else None


def _loads(path: Path) -> bool:
    try:
        return hasattr(ctypes.CDLL(str(path)), "RegisterCustomOps")
    except OSError:
        return False


def register_operators(options: Any) -> None:
    """Register the compiled operators with a session's options, if there are any; graphs without them still run."""
    if path := operators():
        with _REGISTRATION_LOCK:
            options.register_custom_ops_library(str(path))


def sums_in_fp16() -> bool:
    """Return whether ONNX Runtime adds up FP16 convolutions in FP16 on this CPU, for which no tolerance is set.

    It has such kernels on ARM; elsewhere it converts to FP32 around each convolution.
    """
    return platform.machine().lower() in ("aarch64", "arm64")


@functools.cache
def cuda_refusal(device: int = 0) -> str:
    """Return why ONNX Runtime's CUDA provider does not start on a GPU, empty if it does: a graph of one node is loaded.

    Args:
        device: Index of the GPU.

    Returns:
        The reason.
    """
    try:
        OnnxRuntimeBackend(ONE_NODE, provider="cuda", device=device).close()
    except CCNetError as error:
        return str(error)
    return ""


@functools.cache
def _onnxruntime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise CCNetError(f"onnxruntime cannot be loaded ({_one_line(error)}): {INSTALL}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}), expected an ONNX model") from error


def _session(
    ort: Any,
    label: str,
    data: bytes,
    provider: Provider,
    threads: int | None,
    device: int,
    arena: SharedArena | None,
) -> Any:
    if provider not in _PROVIDERS:
        raise ValueError(f"provider is {provider!r}, expected one of {', '.join(_PROVIDERS)}")
    wanted = _PROVIDERS[provider][0]
    available = ort.get_available_providers()
    if wanted not in available:
        raise CCNetError(
            f"onnxruntime has no {wanted}, only {', '.join(available)}: pip uninstall onnxruntime, then"
            f" {install_command('cuda')}, or use the backend onnxruntime"
        )
    if provider != "cpu":
        _load_cuda_libraries(ort)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal: what goes wrong is raised, once
    options.intra_op_num_threads = threads or core_quota() or 0  # 0: one per core, which knows nothing of quotas
    # Both plan ahead by keeping buffers: decode at 512 px took 7.3 GB and 24 s with them, 0.9 GB and 15 s without
    options.enable_mem_reuse = options.enable_mem_pattern = False
    providers = [(name, _provider_options(name, device)) for name in _PROVIDERS[provider] if name in available]
    register_operators(options)
    if arena:
        arena.join(options)
    try:
        session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise CCNetError(f"{label}: cannot be loaded as ONNX ({_one_line(error)}): export it again") from error
    if session.get_providers()[0] != wanted:
        raise CCNetError(f"onnxruntime's {wanted} does not start here: check the GPU's driver, CUDA and cuDNN")
    return session


def _provider_options(name: str, device: int) -> dict[str, str]:
    """Return the options of one of ONNX Runtime's providers, with the GPU for those that use one."""
    place = {} if name == "CPUExecutionProvider" else {"device_id": str(device)}
    return {**_PROVIDER_OPTIONS.get(name, {}), **place}


def _load_cuda_libraries(ort: Any) -> None:
    """Load CUDA and cuDNN where pip installs them, so that ONNX Runtime finds them; no error if they are elsewhere."""
    if hasattr(ort, "preload_dlls"):  # from ONNX Runtime 1.21 on
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def _dtype(label: str, node: Any) -> np.dtype[Any]:
    if node.type not in _DTYPES:
        raise CCNetError(f"{label}: input {node.name!r} is {node.type}, expected float32 or uint8: export it again")
    return _DTYPES[node.type]


def _check(name: str, array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int | str | None, ...]) -> None:
    if array.dtype != dtype:
        raise CCNetError(f"input {name!r} has dtype {array.dtype}, expected {dtype}")
    fits = array.ndim == len(shape) and all(
        expected == size for expected, size in zip(shape, array.shape, strict=True) if isinstance(expected, int)
    )
    if not fits:
        raise CCNetError(f"input {name!r} has shape {array.shape}, the graph takes ({', '.join(map(str, shape))})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
