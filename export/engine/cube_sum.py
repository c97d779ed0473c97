"""One more output of an engine: the sum of the cube, which is finite only if all of its values are.

A reduction on the GPU reads the tile that is in its caches. Without it the host would have to read each cube once more.
"""

from __future__ import annotations

from typing import Any

from ccnet.contract import CUBE, CUBE_SUM


def add_cube_sum(module: Any, network: Any) -> None:
    """Add the output ``cube_sum``, a single float32, to a TensorRT network that has the output ``cube``."""
    outputs = {tensor.name: tensor for tensor in map(network.get_output, range(network.num_outputs))}
    if CUBE not in outputs or CUBE_SUM in outputs:
        return
    cube = outputs[CUBE]
    all_axes = (1 << len(cube.shape)) - 1
    # In FP32: infinite values and NaN stay in a sum, and reflectances cannot overflow it
    layer = network.add_reduce(cube, module.ReduceOperation.SUM, all_axes, keep_dims=False)
    layer.name = CUBE_SUM
    layer.get_output(0).name = CUBE_SUM
    network.mark_output(layer.get_output(0))
