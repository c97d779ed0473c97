"""The whole network: the paper's sizes, the split into encode and decode, any frame size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ccnet.contract import HALO, reflect_index
from ccnet.model import CCNet
from ccnet.model.ccnet import InterSpectral
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.quality.tolerances import TOLERANCES


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


def test_network_has_the_size_of_the_paper(paper_network: CCNet) -> None:
    assert sum(p.numel() for p in paper_network.parameters()) == 1_611_036  # 1.61 M
    assert paper_network.context_size == 7_680
    assert len(paper_network.context_shapes) == 15


def test_inter_spectral_module_costs_what_the_paper_says() -> None:
    """0.42 GMAC at 256×256×32, as torch counts NeSCM's loop and GrSCM's products as the paper writes them."""
    with reference_ops(), FakeTensorMode():  # shapes without arithmetic
        module, x = InterSpectral(32, 16, CCNetConfig()), torch.rand(1, 32, 256, 256)
        grscm, nescm = module.grscm, module.nescm

        def run() -> Tensor:
            v = grscm.to_v(x)
            att = grscm.proj(grscm.attend(grscm.correlate(x), v)) + grscm.position(v)
            fused: Tensor = module.paf(att, nescm.reference_loop(x))
            return fused

        assert multiply_adds(run) == 416_808_960


def multiply_adds(function: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    flops: int = counter.get_total_flops()
    return flops // 2


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (1, 31), (17, 31)], ids=str)
def test_forward_equals_decode_with_the_encoded_context(network: CCNet, size: tuple[int, int]) -> None:
    rgb = torch.rand(2, 3, *size)
    cube, context = network(rgb), network.encode(rgb)
    assert cube.shape == (2, 31, *size)
    assert cube.isfinite().all()
    assert context.shape == (2, network.context_size)
    torch.testing.assert_close(network.decode(rgb, context), cube, rtol=0, atol=TOLERANCES["fp32"].max_abs)


@pytest.mark.parametrize(("height", "width"), [(1, 31), (17, 31)])
def test_frames_of_odd_size_are_padded_by_reflection(network: CCNet, height: int, width: int) -> None:
    rgb = torch.rand(1, 3, height, width)
    rows, columns = (torch.from_numpy(reflect_index(size, 0, 32 if size > 16 else 16)) for size in (height, width))
    padded = rgb[:, :, rows][..., columns]
    assert torch.equal(network(rgb), network(padded)[..., :height, :width])


def test_padding_completes_the_last_patch() -> None:
    network = CCNet(CCNetConfig(units=1, patch=32)).eval()
    assert network(torch.rand(1, 3, 17, 40)).shape == (1, 31, 17, 40)


def test_context_holds_every_attention_matrix(network: CCNet) -> None:
    parts = network.encode(torch.rand(1, 3, 16, 16)).split([g * i * j for g, i, j in network.context_shapes], dim=1)
    for part, shape in zip(parts, network.context_shapes, strict=True):
        torch.testing.assert_close(part.unflatten(1, shape).sum(-1), torch.ones(1, *shape[:2]))


def test_images_of_a_batch_are_independent(network: CCNet) -> None:
    rgb = torch.rand(3, 3, 16, 32)
    singly = torch.cat([network(image[None]) for image in rgb])
    torch.testing.assert_close(network(rgb), singly, rtol=0, atol=TOLERANCES["fp32"].max_abs)


def test_batch_of_tiles_shares_one_context(network: CCNet) -> None:
    rgb, context = torch.rand(2, 3, 16, 16), network.encode(torch.rand(1, 3, 48, 32))
    both = network.decode(rgb, context.expand(2, -1))
    torch.testing.assert_close(network.decode(rgb, context), both, rtol=0, atol=TOLERANCES["fp32"].max_abs)


def test_cube_depends_on_the_context(network: CCNet) -> None:
    rgb = torch.rand(1, 3, 16, 16)
    other = network.encode(1 - rgb)
    assert (network.decode(rgb, other) - network(rgb)).abs().max() > 1e-4


def test_decode_reads_no_further_than_the_halo(paper_network: CCNet) -> None:
    rgb = torch.rand(1, 3, 16, 16 + HALO + 32)
    changed = rgb.clone()
    changed[..., :16] = torch.rand(1, 3, 16, 16)
    context = paper_network.encode(rgb)
    moved = (paper_network.decode(changed, context) - paper_network.decode(rgb, context)).abs().amax((0, 1, 2))
    limit = TOLERANCES["tiled"].max_abs
    assert limit is not None
    assert moved[:16].max() > 1e-2
    assert moved[16 + HALO :].max() <= limit


def test_network_repeats_exactly(network: CCNet) -> None:
    rgb = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(rgb), network(rgb))


def test_under_autocast_the_context_stays_float32(network: CCNet) -> None:
    rgb = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        cube, context = network.run(rgb, None)
    assert context.dtype == torch.float32
    torch.testing.assert_close(context, network.encode(rgb), rtol=0, atol=0.05)
    torch.testing.assert_close(cube.float(), network(rgb), rtol=0, atol=0.1)


@pytest.mark.parametrize("size", [0, 1, 2559, 2561])
def test_decode_refuses_a_context_of_another_size(network: CCNet, size: int) -> None:
    with pytest.raises(ValueError, match=f"context holds {size} numbers, this configuration has 2560"):
        network.decode(torch.rand(1, 3, 16, 16), torch.rand(1, size))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 16, 16, 3)])
def test_network_refuses_input_of_another_shape(network: CCNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
        network(torch.rand(shape))
