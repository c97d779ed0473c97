"""The cost of whole frames: the variants compute the same cube, and memory is measured in a separate process."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.export.bench import frames, inference, networks
from ccnet.export.bench.inference import FRAME, FUSED, LOOP, MHA
from ccnet.export.bench.networks import Network
from ccnet.export.bench.roofline import Rates
from ccnet.runtime.backends.onnxruntime import operators

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler"),
]


def test_frame_is_read_and_reconstructed(exported_networks: dict[str, Network]) -> None:
    row = inference.measure(exported_networks, FRAME, (40, 56), 1, 1, Rates(copy=1e10, product=1e11))
    assert row.timings.keys() == {FUSED, LOOP, MHA}
    assert row.difference is not None
    assert row.difference <= 1e-5


def test_growth_is_measured_in_a_process_of_its_own(exported_networks: dict[str, Network]) -> None:
    fat = np.ones(1 << 29, np.float32)  # 2 GB of this process, which the measurement must not count
    growth = frames.measure_growth(exported_networks[networks.CCNET], (512, 512), 1)
    del fat
    assert growth.megapixels == pytest.approx(0.262, abs=1e-3)
    assert growth.seconds > 0
    assert 50 < growth.peak_mb < 2000
    assert growth.per_megapixel == pytest.approx(growth.seconds / growth.megapixels)
