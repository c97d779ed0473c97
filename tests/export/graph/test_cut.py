"""The graphs that are cut out of the traced one: their inputs and outputs, and what each part computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from ccnet.contract import CONTEXT, CUBE, HALO, RGB
from ccnet.export.graph import cut
from ccnet.runtime.quality.tolerances import TOLERANCES

from .graphs import Artifacts, each_kind, expected, feeds, load, modules, run


def test_graphs_are_cut_at_the_context(artifacts: Artifacts) -> None:
    folder = artifacts[1]
    ends = {
        kind: ([value.name for value in proto.input], [value.name for value in proto.output])
        for kind in ("encode", "decode", "full")
        for proto in [load(folder, f"{kind}.fp32").graph]
    }
    assert ends == {"encode": ([RGB], [CONTEXT]), "decode": ([RGB, CONTEXT], [CUBE]), "full": ([RGB], [CUBE])}
    computed = {
        f"units.0.{block}.inter.grscm.{part}" for block in ("enc1", "dec1") for part in ("to_q", "to_k", "unit")
    }
    assert computed <= modules(load(folder, "full.fp32"))
    assert not computed & modules(load(folder, "decode.fp32")), "decode sums over all pixels"
    after = {"conv_out", "units.0.dec1.intra.net.0", "units.0.dec1.inter.nescm"}  # the last attention
    assert after <= modules(load(folder, "decode.fp32"))
    assert not after & modules(load(folder, "encode.fp32")), "encode computes what no attention needs"


def test_decode_reads_no_further_than_the_halo(artifacts: Artifacts) -> None:
    """Under one context, pixels beyond one halo change the cube within tolerance, and beyond two halos not at all."""
    rgb = np.random.default_rng(0).random((1, 3, 16, 3 * HALO), np.float32)
    context = expected(artifacts[0], rgb)[CONTEXT]
    changed = rgb.copy()
    changed[..., :16] = 1 - changed[..., :16]
    decode = load(artifacts[1], "decode.fp32")
    before, after = (run(decode, feeds("decode", one, context)) for one in (rgb, changed))
    reached = np.abs(before - after).max((0, 1, 2))
    assert reached[16 : 16 + HALO].max() > 1e-3
    assert reached[16 + HALO :].max() <= TOLERANCES["tiled"].max_abs
    assert not reached[16 + 2 * HALO :].any()


@each_kind
def test_uint8_frames_give_the_result_of_float_frames(artifacts: Artifacts, kind: str) -> None:
    model, folder = artifacts
    frame = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    rgb = np.ascontiguousarray(frame.transpose(0, 3, 1, 2) / np.float32(255))
    context = expected(model, rgb)[CONTEXT]
    packed = ir.to_proto(cut.with_uint8_frames(ir.load(folder / f"{kind}.fp32.onnx")))
    onnx.checker.check_model(packed, full_check=True)
    found = run(packed, feeds(kind, frame, context))
    assert np.array_equal(found, run(load(folder, f"{kind}.fp32"), feeds(kind, rgb, context)))


@each_kind
def test_uint8_is_cast_before_it_is_transposed(artifacts: Artifacts, kind: str) -> None:
    """TensorRT's parser refuses a UINT8 Transpose."""
    packed = cut.with_uint8_frames(ir.load(artifacts[1] / f"{kind}.fp32.onnx")).graph
    frame = next(value for value in packed.inputs if value.name == RGB)
    assert frame.dtype == ir.DataType.UINT8
    assert [use.node.op_type for use in frame.uses()] == ["Cast"]
    assert {value.dtype for node in packed for value in node.inputs if value and node.op_type == "Transpose"} == {
        ir.DataType.FLOAT
    }
