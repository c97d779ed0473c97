"""NeSCM's translations to ONNX compute the paper's loop."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import onnxscript.evaluator
import onnxscript.tensor
import pytest
import torch

from ccnet.export.graph import nescm_multiply_add, nescm_unrolled
from ccnet.model.blocks import NeSCM
from ccnet.model.config import CCNetConfig
from ccnet.runtime.quality.tolerances import TOLERANCES


@pytest.mark.parametrize("translation", [nescm_unrolled, nescm_multiply_add], ids=["unrolled", "multiply-add"])
@pytest.mark.parametrize("width", [32, 40])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_translation_computes_the_papers_loop(heads: int, width: int, translation: ModuleType) -> None:
    """Operator by operator, as the reference evaluator defines them; float64 in the loop."""
    module = NeSCM(heads * width, CCNetConfig(width=width))
    x = torch.randn(1, heads * width, 3, 5)
    cmus = (module.forward_cmu, module.backward_cmu)
    weights = (
        torch.stack([cmu.forget.weight.flatten(1) for cmu in cmus]),
        torch.stack([cmu.forget.bias for cmu in cmus]),
        torch.stack([cmu.output.weight for cmu in cmus]),
        cmus[0].output.bias + cmus[1].output.bias,
    )
    features, *rest = (onnxscript.tensor.Tensor(tensor.detach().numpy()) for tensor in (x, *weights))
    with onnxscript.evaluator.default_as(onnxscript.evaluator.OnnxReferenceRuntimeEvaluator()):
        found = translation.nescm(features, 4, *rest)
    with torch.inference_mode():
        expected = module.double().reference_loop(x.double())
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=0, atol=TOLERANCES["scan"].max_abs)
