"""TensorRT's plugin against a module that stands for ``tensorrt``, and its kernel in the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet.contract import CCNetError
from ccnet.ops.cuda.pooled_nescm import cuda_pooled_nescm
from ccnet.ops.cuda.variants import PooledVariant
from ccnet.runtime.backends import select, trt_plugin
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.trt_plugin import CompiledKernel, register
from ccnet.runtime.gpu.kernels import Kernel
from tests.ccnet.ops.cuda.emulator import installed_emulator
from tests.runtime.backends.trt_double import DataType, Module, Phase, PluginField, PluginFieldType, TensorFormat, desc

HEADS, BANDS, GROUPS = 2, 32, 4
CODE = bytes(range(256))
KERNELS = {heads: CompiledKernel(CODE[heads:], *PooledVariant(heads=heads).tile, 180) for heads in (1, 2, 4)}


@pytest.fixture
def module() -> Module:
    return Module()


def inputs(height: int = 48, width: int = 64) -> list[Any]:
    """Return features and weights as TensorRT describes them."""
    shapes = [(2, HEADS, 2 * HEADS), (2, HEADS), (2, HEADS, HEADS, 3, 3, 3), (HEADS,)]
    return [desc((1, BANDS * HEADS, height, width), DataType.HALF), *map(desc, shapes)]


def parsed(module: Module) -> Any:
    """Return the plugin as the ONNX parser makes it from a node."""
    register(module, KERNELS)
    (creator,) = module.registry.creators
    groups = PluginField("groups", np.array([GROUPS], np.int32), PluginFieldType.INT32)
    return creator.create_plugin("node", [groups], Phase.BUILD)


def deserialized(module: Module, plugin: Any) -> Any:
    """Return the plugin as a runtime makes it from an engine, which has copies of the fields."""
    fields = [PluginField(field.name, field.data.copy(), field.type) for field in plugin.get_fields_to_serialize()]
    register(runtime := Module())
    return runtime.registry.creators[0].create_plugin("node", fields, Phase.RUNTIME)


def test_is_registered_once_under_the_nodes_name(module: Module) -> None:
    register(module)
    register(module, KERNELS)
    (creator,) = module.registry.creators
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == ("PooledNeSCM", "1", "")
    assert creator.kernels is KERNELS


def test_refusal_of_tensorrt_is_an_error(module: Module) -> None:
    module.registry.accepts = False
    with pytest.raises(CCNetError, match=r"TensorRT 10\.3\.0 does not register the plugin PooledNeSCM"):
        register(module)


def test_result_has_two_planes_a_group_in_the_features_type(module: Module) -> None:
    plugin = parsed(module)
    (shape,) = plugin.get_output_shapes([["B", 64, "H", "W"]], [], SimpleNamespace(constant=lambda number: number))
    assert shape == ["B", 2 * GROUPS, "H", "W"]
    assert plugin.get_output_data_types([DataType.HALF, *[DataType.FLOAT] * 4]) == [DataType.HALF]


def test_features_are_fp16_and_weights_float_both_without_gaps(module: Module) -> None:
    plugin = parsed(module)
    tensors = [*inputs(), desc((1, 8, 48, 64), DataType.HALF)]
    assert all(plugin.supports_format_combination(position, tensors, 5) for position in range(6))
    for position in range(6):
        changed = list(tensors)
        other = DataType.HALF if tensors[position].type == DataType.FLOAT else DataType.FLOAT
        changed[position] = desc(tensors[position].dims, other)
        assert not plugin.supports_format_combination(position, changed, 5)
        changed[position] = desc(tensors[position].dims, tensors[position].type, TensorFormat.CHW16)
        assert not plugin.supports_format_combination(position, changed, 5)


def test_engine_keeps_the_kernel_of_its_number_of_heads(module: Module) -> None:
    plugin = parsed(module)
    plugin.configure_plugin(inputs(), [])
    loaded = deserialized(module, plugin.clone())
    assert loaded.kernel == KERNELS[HEADS]
    assert loaded.groups == GROUPS
    copy = loaded.attach_to_context(None)
    assert copy is not loaded
    assert copy.kernel.kernel is loaded.kernel.kernel  # loaded once


def test_enqueue_computes_in_the_emulator_what_the_operator_does(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, BANDS * HEADS, 10, 20).half()
    weights = (torch.randn(2, HEADS, 2 * HEADS), torch.randn(2, HEADS), torch.randn(2, HEADS, HEADS, 3, 3, 3) / 5)
    tensors = (x, *weights, torch.randn(HEADS))
    y = torch.zeros(2, 2 * GROUPS, 10, 20).half()
    variant = PooledVariant(heads=HEADS, storage="Half")
    with installed_emulator(tmp_path) as emulator:
        expected = cuda_pooled_nescm(x, GROUPS, *tensors[1:])

        def launch(kernel: Kernel, stream: int, grid: Any, threads: int, arguments: Sequence[Any]) -> None:
            assert (stream, threads) == (77, variant.threads)
            addresses = {tensor.data_ptr(): tensor for tensor in (*tensors, y)}
            given: list[Tensor | int] = [
                addresses[int(each.value or 0)] if isinstance(each, ctypes.c_void_p) else each.value
                for each in arguments
            ]
            emulator.launch(variant, "ccnet_pooled_nescm", grid, tuple(given))

        monkeypatch.setattr(Kernel, "launch", launch)
        register(module, {HEADS: CompiledKernel(CODE, *variant.tile, variant.threads)})
        plugin = parsed_with(module, desc(tuple(x.shape), DataType.HALF))
        loaded = deserialized(module, plugin)
        described = [desc(tuple(x.shape), DataType.HALF), *inputs()[1:]]
        loaded.on_shape_change(described, [])
        sources = [tensor.data_ptr() for tensor in tensors]
        loaded.enqueue(described, [desc(tuple(y.shape), DataType.HALF)], sources, [y.data_ptr()], 0, 77)
    assert torch.equal(y, expected)


def parsed_with(module: Module, features: Any) -> Any:
    """Return a configured plugin of the kernels that are registered."""
    (creator,) = module.registry.creators
    groups = PluginField("groups", np.array([GROUPS], np.int32), PluginFieldType.INT32)
    plugin = creator.create_plugin("node", [groups], Phase.BUILD)
    plugin.configure_plugin([features, *inputs()[1:]], [])
    return plugin


@pytest.mark.parametrize("plugin", [True, False])
def test_runtime_registers_the_plugin_that_the_manifest_names(
    plugin: bool, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "load", lambda name: module)
    details = {"version": "10.3.0", "gpu": "Orin (sm_87)", "plugin": plugin}
    select._check_machine("tensorrt", details, "Orin (sm_87)")
    assert len(module.registry.creators) == plugin
    assert trt_plugin.NAME == "PooledNeSCM"
