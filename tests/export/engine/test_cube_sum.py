"""The sum of the cube as an output of engines."""

from __future__ import annotations

import onnx

from .gated_model import HALF, Build, model


def test_an_fp16_engine_has_the_sum_of_its_cube_in_fp32(build: Build) -> None:
    cube, cube_sum = build(model(HALF)).io[-2:]
    assert (cube.name, cube_sum.name, cube_sum.mode) == ("cube", "cube_sum", "output")
    assert (cube_sum.dtype, cube_sum.shape) == ("float32", ())


def test_other_outputs_get_no_sum(build: Build) -> None:
    context: onnx.ModelProto = model()
    context.graph.node[-1].output[0] = context.graph.output[0].name = "another"
    assert [tensor.name for tensor in build(context).io] == ["rgb", "context", "another"]
