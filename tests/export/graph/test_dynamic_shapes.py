"""A graph traced at one size equals PyTorch at every other size; a size that cannot be made free is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from ccnet.export.graph.dynamic_shapes import TracedSize
from ccnet.export.graph.trace import to_onnx

MULTIPLE = 4


class Function(nn.Module):
    """A function as a module for the exporter."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.function(x_BCHW)


def groups(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).mean(2)


def flat(x: Tensor) -> Tensor:
    return (x.flatten(2) * 2).reshape(x.shape)


def patches(x: Tensor) -> Tensor:
    x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(4)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(1, 3).flatten(2)  # (B, W, H·C)


def filled(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x)], 1)


def one_of(x: Tensor) -> Tensor:
    return x[:, 1:2] + x.repeat(1, 8, 1, 1)[:, 37:38]  # a place, and no size


def made(function: Callable[[Tensor], Tensor]) -> ir.Model:
    return to_onnx(Function(function), {"x": torch.zeros(1, 6, MULTIPLE, MULTIPLE)}, ["y"], MULTIPLE)


@pytest.mark.parametrize("function", [groups, flat, patches, transposed, filled, one_of])
def test_every_size_computes_the_result_of_pytorch(function: Callable[[Tensor], Tensor]) -> None:
    session = onnxruntime.InferenceSession(ir.to_proto(made(function)).SerializeToString())
    for height, width in ((1, 1), (2, 3), (5, 2)):
        x = torch.rand(1, 6, height * MULTIPLE, width * MULTIPLE)
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], function(x).numpy(), rtol=1e-6)


def test_sizes_are_named_by_their_factors() -> None:
    model = made(patches)
    assert [value.shape for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ir.Shape([1, 6, "4*h4", "4*w4"]),
        ir.Shape([1, "2*h4", "2*w4", 6, 4]),
    ]


def test_reshape_with_one_free_size_needs_no_arithmetic() -> None:
    assert not any(node.op_type in ("Shape", "Div") for node in made(transposed).graph)


def test_size_that_is_not_a_fraction_of_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="is no fraction of either"):
        made(lambda x: x.new_ones(x.shape[2] * x.shape[3], 2))


def test_traced_sizes_differ_from_all_network_sizes() -> None:
    sizes = TracedSize.unlike(16, [131 * 3, 64])
    assert sizes.pixels == (16 * 137, 16 * 139)
    assert not any(map(sizes.is_free, (131, 64, 0, -1, 16)))
    assert sizes.name(0) == 0
    with pytest.raises(ValueError, match=r"only \[149\]"):
        TracedSize.unlike(16, [131, 137, 139])
