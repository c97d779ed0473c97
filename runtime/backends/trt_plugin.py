"""NeSCM with SIA's pooling as a plugin of TensorRT: ``PooledNeSCM``, in graphs of ``ccnet export --plugin``.

The kernel's machine code is in the engine, so a runtime needs no compiler: it registers the plugin before it
deserializes an engine whose manifest entry says that it has one. No TensorRT has run this yet (docs/gpu.md).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from ctypes import c_int, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.kernels import Kernel

NAME, VERSION = "PooledNeSCM", "1"
_FUNCTION = "ccnet_pooled_nescm"


@dataclass(frozen=True)
class CompiledKernel:
    """The kernel for one number of heads and for FP16 features.

    Attributes:
        code: Machine code of one architecture.
        rows: Rows that a block computes.
        columns: Columns that a block computes.
        threads: Threads of a block.
    """

    code: bytes
    rows: int
    columns: int
    threads: int

    @functools.cached_property
    def kernel(self) -> Kernel:
        """The kernel to launch; copies of a plugin share it."""
        return Kernel(self.code, _FUNCTION)

    def fields(self) -> dict[str, npt.NDArray[Any]]:
        """Return what an engine must keep of the kernel."""
        block = np.array([self.rows, self.columns, self.threads], np.int32)
        return {"block": block, "code": np.frombuffer(self.code, np.int8)}

    def launch(
        self, groups: int, heads: int, size: Sequence[int], inputs: Sequence[int], output: int, stream: int
    ) -> None:
        """Queue the kernel.

        Args:
            groups: k.
            heads: n.
            size: Shape of the features, (B, C, H, W).
            inputs: Addresses of the features, and of the weights in the node's order.
            output: Address of the result, (B, 2k, H, W).
            stream: Handle of the stream.
        """
        images, channels, height, width = size
        grid = -(-width // self.columns), -(-height // self.rows), images
        sizes = (channels // heads, groups, height, width)
        addresses = [c_void_p(address) for address in (*inputs, output)]
        self.kernel.launch(stream, grid, self.threads, [*addresses, *map(c_int, sizes)])


def register(module: Any, kernels: Mapping[int, CompiledKernel] | None = None) -> None:
    """Register the plugin, once for the process.

    Args:
        module: ``tensorrt``.
        kernels: Number of heads → the kernel, for a build; an engine brings its own.

    Raises:
        CCNetError: TensorRT refuses the plugin.
    """
    creator = _creator(module)
    if kernels is not None:
        creator.kernels = kernels


@functools.cache
def _creator(module: Any) -> Any:
    plugin = _plugin_class(module)

    class Creator(module.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = NAME, VERSION, ""
            self.kernels: Mapping[int, CompiledKernel] = {}
            groups = module.PluginField("groups", np.array([], np.int32), module.PluginFieldType.INT32)
            self.field_names = module.PluginFieldCollection([groups])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            found = {field.name: np.asarray(field.data) for field in fields}
            kernel = None
            if "code" in found:
                kernel = CompiledKernel(found["code"].tobytes(), *map(int, found["block"]))
            return plugin(int(found["groups"].reshape(-1)[0]), self.kernels, kernel)

    creator = Creator()
    if not module.get_plugin_registry().register_creator(creator, ""):
        raise CCNetError(f"TensorRT {module.__version__} does not register the plugin {NAME}: build without --plugin")
    return creator


def _plugin_class(module: Any) -> Any:
    """Return the plugin's class, whose base classes are those of the module."""
    bases = (module.IPluginV3, module.IPluginV3OneCore, module.IPluginV3OneBuild, module.IPluginV3OneRuntime)
    return type("Plugin", (_PluginMethods, *bases), {"module": module, "bases": bases})


class _PluginMethods:
    """The methods that TensorRT calls, under its names: first to build an engine, then to run it."""

    module: Any
    bases: tuple[Any, ...]

    def __init__(self, groups: int, kernels: Mapping[int, CompiledKernel], kernel: CompiledKernel | None) -> None:
        for base in self.bases:
            base.__init__(self)
        self.plugin_name, self.plugin_version, self.plugin_namespace = NAME, VERSION, ""
        self.num_outputs, self.timing_cache_id = 1, ""
        self.groups, self.kernels = groups, kernels
        self.kernel: Any = kernel  # None until a build knows the number of heads

    def get_capability_interface(self, kind: Any) -> Any:
        return self

    def clone(self) -> Any:
        return type(self)(self.groups, self.kernels, self.kernel)

    def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
        return [types[0]]

    def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
        shape = self.module.DimsExprs(inputs[0])
        shape[1] = builder.constant(2 * self.groups)
        return [shape]

    def supports_format_combination(self, position: int, tensors: Any, num_inputs: int) -> bool:
        types, is_weight = self.module.DataType, 0 < position < num_inputs
        found = tensors[position].desc
        linear = found.format == self.module.TensorFormat.LINEAR
        return bool(linear and found.type == (types.FLOAT if is_weight else types.HALF))

    def configure_plugin(self, inputs: Any, outputs: Any) -> None:
        self.kernel = self.kernel or self.kernels[inputs[1].desc.dims[1]]

    def get_fields_to_serialize(self) -> Any:
        arrays = {"groups": np.array([self.groups], np.int32), **self.kernel.fields()}
        self.serialized = arrays  # TensorRT reads them later
        types = {"int32": self.module.PluginFieldType.INT32, "int8": self.module.PluginFieldType.INT8}
        fields = [self.module.PluginField(name, array, types[array.dtype.name]) for name, array in arrays.items()]
        return self.module.PluginFieldCollection(fields)

    def attach_to_context(self, context: Any) -> Any:
        return self.clone()

    def on_shape_change(self, inputs: Any, outputs: Any) -> None:
        """Do nothing: a launch reads the shapes that it has."""

    def enqueue(self, inputs: Any, outputs: Any, sources: Any, targets: Any, workspace: int, stream: int) -> None:
        size, heads = tuple(inputs[0].dims), inputs[1].dims[1]
        self.kernel.launch(self.groups, heads, size, sources, targets[0], stream)
