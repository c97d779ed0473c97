"""The differences among TensorRT's Python modules: ``tensorrt`` 10.3 to 11.x and ``tensorrt_rtx`` 1.x.

Only names common to all of them are used here and by ``ccnet.export.engine`` and ``.trt_engine``;
``tests/runtime/backends/test_trt_api.py`` holds the list. TensorRT has no type stubs, so its objects are ``Any``.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ccnet.contract import CCNetError, install_command
from ccnet.runtime.gpu.cuda import has_gpu

__all__ = [
    "Log",
    "Name",
    "available",
    "dtype",
    "has_gpu",
    "load",
    "log",
    "one_line",
    "resize_scratch_by_shape",
    "title",
    "version",
]

Name = Literal["tensorrt", "tensorrt_rtx"]

_MODULES: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),  # metapackage, then the bare bindings' wheel
}
_OLDEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 7)}
_INSTALL = {
    "tensorrt": f"{install_command('tensorrt')}; on a Jetson it comes with JetPack (apt install nvidia-jetpack)",
    "tensorrt_rtx": install_command("rtx"),
}

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}

_NO_DRIVER = re.compile(r"cudaError (35|100)\b")
_NOISE = re.compile(r"^(ModelImporter\.cpp:\d+|--- |Node name: |Invalid Node - |Thread context has not been set)")
_SOURCE = re.compile(r"\.?\s+In \w+ at /\S+:\d+(?=[\s)]|$)")
_LONGEST = 400


class Log(Protocol):
    """A TensorRT logger: all messages go to Python's logging, and the last errors are kept."""

    def log(self, severity: Any, message: str) -> None:
        """Log a message; TensorRT calls this."""

    def forget(self) -> None:
        """Forget the errors: a new operation begins."""

    def reason(self) -> str:
        """Return the errors since ``forget`` in one line, empty if there were none."""

    def recording(self) -> AbstractContextManager[list[str]]:
        """Record all messages inside ``with``, in the list that it returns."""


@functools.cache
def load(name: Name) -> ModuleType:
    """Import the module of that name; a CCNetError says what to install, or what is too old."""
    if name not in _MODULES:
        raise CCNetError(f"TensorRT variant is {name!r}, expected one of {', '.join(_MODULES)}")
    module = next((found for candidate in _MODULES[name] if (found := _import(name, candidate))), None)
    if module is None:
        raise CCNetError(f"{name} is not installed: {_INSTALL[name]}")
    if version(module) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise CCNetError(f"{name} is {module.__version__}, expected {oldest} or later: {_INSTALL[name]}")
    return module


def _import(name: Name, module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return None
        raise CCNetError(f"{name} is installed but cannot be loaded ({error}): {_INSTALL[name]}") from error


def available() -> list[str]:
    """Return the names of the modules that load here."""
    return [name for name in get_args(Name) if _loads(name)]


def _loads(name: Name) -> bool:
    try:
        return bool(load(name))
    except CCNetError:
        return False


def version(module: ModuleType) -> tuple[int, ...]:
    """Return a module's version as numbers: ``11.4.0.106`` → (11, 4, 0, 106), without ``.post1`` or ``b6``."""
    number = re.match(r"\d+(\.\d+)*", module.__version__)
    if number is None:
        raise CCNetError(f"{module.__name__}'s version is {module.__version__!r}, expected numbers: install it again")
    return tuple(map(int, number[0].split(".")))


def title(name: Name) -> str:
    """Return name and version for messages and reports, such as ``tensorrt_rtx 1.7.1``."""
    return f"{name} {'.'.join(map(str, version(load(name))[:3]))}"


def dtype(data_type: Any) -> np.dtype[Any]:
    """Return the numpy type of a TensorRT ``DataType``; a CCNetError for types that numpy lacks, such as BF16."""
    if data_type.name not in _DTYPES:
        raise CCNetError(f"tensor type is {data_type.name}, expected one of {', '.join(_DTYPES)}: cast it in the graph")
    return np.dtype(_DTYPES[data_type.name])


def resize_scratch_by_shape(module: Any, config: Any) -> None:
    """Let engines compute the scratch memory of each shape, where TensorRT can (10.10 and later, not the default)."""
    feature = getattr(module.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def one_line(text: str) -> str:
    """Join TensorRT's messages to one line, without source positions and repetition."""
    lines = [_SOURCE.sub("", line).strip() for line in text.splitlines()]
    told = list(dict.fromkeys(line for line in lines if line and not _NOISE.match(line)))
    # With no driver every failure also complains about the driver, which an RTX build does not need.
    told = [line for line in told if not _NO_DRIVER.search(line)] or told
    joined = "; ".join(told)
    return joined if len(joined) <= _LONGEST else f"{joined[:_LONGEST]} …"


@functools.cache
def log(name: Name) -> Log:
    """Return the logger of a module, one for the process: TensorRT keeps it, and wants the same for all its objects."""
    trt: Any = load(name)
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
        severity.VERBOSE: logging.DEBUG,
    }
    sink = logging.getLogger(f"{__name__}.{name}")
    sink.addHandler(logging.NullHandler())  # an application that sets up no logging gets the CCNetError only

    class PythonLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=8)
            self._messages: list[str] | None = None

        def log(self, severity: Any, message: str) -> None:
            level = levels[severity]
            sink.log(level, "%s", message)
            if self._messages is not None:
                self._messages.append(message)
            if level == logging.ERROR:
                self._errors.append(message)

        def forget(self) -> None:
            self._errors.clear()

        def reason(self) -> str:
            return one_line("\n".join(self._errors))

        @contextmanager
        def recording(self) -> Iterator[list[str]]:
            messages: list[str] = []
            self._messages = messages
            try:
                yield messages
            finally:
                self._messages = None

    logger: Log = PythonLog()
    return logger
