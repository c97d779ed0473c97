"""The part of ``tensorrt`` that a plugin meets, as NVIDIA documents it for 10.3 and later; nothing of it was run."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2


class TensorFormat(enum.Enum):
    LINEAR = 0
    CHW16 = 1


class PluginFieldType(enum.Enum):
    INT8 = 3
    INT32 = 5


class Phase(enum.Enum):
    BUILD = 0
    RUNTIME = 1


class IPluginV3: ...


class IPluginV3OneCore: ...


class IPluginV3OneBuild: ...


class IPluginV3OneRuntime: ...


class IPluginCreatorV3One: ...


class PluginField:
    """Name, type and buffer of a field. TensorRT copies the buffer later, so the plugin must keep it."""

    def __init__(self, name: str, data: Any, type: PluginFieldType) -> None:
        assert np.dtype({PluginFieldType.INT8: np.int8, PluginFieldType.INT32: np.int32}[type]) == data.dtype
        self.name, self.data, self.type = name, data, type


class Registry:
    def __init__(self) -> None:
        self.creators: list[Any] = []
        self.accepts = True

    def register_creator(self, creator: Any, namespace: str) -> bool:
        assert namespace == creator.plugin_namespace == ""
        self.creators.append(creator)
        return self.accepts


class Module:
    """A module ``tensorrt`` of its own registry."""

    __version__ = "10.3.0"
    DataType, TensorFormat, PluginFieldType, TensorRTPhase = DataType, TensorFormat, PluginFieldType, Phase
    IPluginV3, IPluginV3OneCore, IPluginV3OneBuild = IPluginV3, IPluginV3OneCore, IPluginV3OneBuild
    IPluginV3OneRuntime, IPluginCreatorV3One = IPluginV3OneRuntime, IPluginCreatorV3One
    PluginField, PluginFieldCollection, DimsExprs = PluginField, list, list

    def __init__(self) -> None:
        self.registry = Registry()

    def get_plugin_registry(self) -> Registry:
        return self.registry


def desc(dims: tuple[int, ...], type: DataType = DataType.FLOAT, format: TensorFormat = TensorFormat.LINEAR) -> Any:
    """Return a PluginTensorDesc; ``.desc`` is what a DynamicPluginTensorDesc has of it."""
    inner = SimpleNamespace(dims=dims, type=type, format=format)
    return SimpleNamespace(desc=inner, dims=dims, type=type, format=format)
