"""The operator PixelMLP: a cube plus the per-pixel base of its frame, compared with float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators

pytestmark = pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")

Array = npt.NDArray[np.float32]


def pixel_mlp(cube: Array, rgb: Array, layers: list[Array], threads: int = 2) -> npt.NDArray[Any]:
    names = [f"layer{index}" for index in range(len(layers))]
    node = onnx.helper.make_node("PixelMLP", ["cube", "rgb", *names], ["y"], domain="ccnet")
    graph = onnx.helper.make_graph(
        [node],
        "base",
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * array.ndim)
            for name, array in (("cube", cube), ("rgb", rgb))
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(layer, name) for layer, name in zip(layers, names, strict=True)],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ccnet", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with OnnxRuntimeBackend(model.SerializeToString(), threads=threads) as opened:
        return opened.run({"cube": cube, "rgb": rgb})["y"]


def reference(cube: Array, rgb: Array, layers: list[Array]) -> npt.NDArray[np.float64]:
    features = rgb.astype(np.float64)
    for index, layer in enumerate(layers):
        with np.errstate(invalid="ignore"):
            features = np.einsum("oi,bihw->bohw", layer[:, :, 0, 0].astype(np.float64), features)
        if index < len(layers) - 1:
            features = np.maximum(features, 0)
    return cube + features


def random_layers(hidden: int, bands: int) -> list[Array]:
    random, sizes = np.random.default_rng(hidden), (3, hidden, hidden, hidden, bands)
    shapes = [(out, into, 1, 1) for into, out in pairwise(sizes)]
    return [random.standard_normal(shape, np.float32) / np.float32(shape[1]) ** 0.5 for shape in shapes]


def random_images(height: int, width: int, bands: int = 31, count: int = 2) -> tuple[Array, Array]:
    random = np.random.default_rng(height * 1000 + width)
    cube = random.standard_normal((count, bands, height, width), np.float32)
    return cube, random.random((count, 3, height, width), np.float32)


@pytest.mark.parametrize(("hidden", "bands"), [(48, 31), (128, 31), (4, 4), (68, 33), (12, 64)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (16, 16), (17, 31), (61, 151)])  # blocks have 256 px
def test_sum_is_that_of_the_layers(hidden: int, bands: int, height: int, width: int) -> None:
    images, layers = random_images(height, width, bands), random_layers(hidden, bands)
    found = pixel_mlp(*images, layers)
    np.testing.assert_allclose(found, reference(*images, layers), rtol=0, atol=5e-6)


def test_threads_do_not_change_the_sum() -> None:
    images, layers = random_images(70, 33), random_layers(48, 31)
    np.testing.assert_array_equal(pixel_mlp(*images, layers, 1), pixel_mlp(*images, layers, 3))


def test_pixel_of_another_place_has_the_same_sum() -> None:
    """Tiles of a frame cut it anywhere."""
    (cube, rgb), layers = random_images(40, 50), random_layers(48, 31)
    whole = pixel_mlp(cube, rgb, layers)
    part = np.s_[:, :, 3:30, 11:42]
    np.testing.assert_allclose(pixel_mlp(cube[part], rgb[part], layers), whole[part], rtol=0, atol=2e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_stay_in_their_pixel(value: float) -> None:
    (cube, rgb), layers = random_images(20, 30), random_layers(48, 31)
    rgb[1, 2, 19, 29] = rgb[0, 0, 8, 15] = cube[0, 5, 1, 1] = value
    found, expected = pixel_mlp(cube, rgb, layers), reference(cube, rgb, layers)
    assert not np.isfinite(expected[1, :, 19, 29]).any()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_no_image_is_no_sum() -> None:
    assert pixel_mlp(*random_images(4, 4, count=0), random_layers(48, 31)).shape == (0, 31, 4, 4)


@pytest.mark.parametrize(
    ("index", "shape"),
    [
        (0, (1, 3, 4, 4)),
        (0, (1, 30, 4, 4)),
        (0, (31, 4, 4)),
        (0, (2, 31, 4, 4)),
        (1, (1, 4, 4, 4)),
        (1, (1, 3, 4, 5)),
        (1, (3, 4, 4)),
        (2, (48, 3)),
        (2, (48, 4, 1, 1)),
        (2, (46, 3, 1, 1)),
        (2, (0, 3, 1, 1)),
        (3, (48, 44, 1, 1)),
        (3, (48, 48)),
        (4, (44, 48, 1, 1)),
        (5, (32, 48, 1, 1)),
        (5, (31, 48, 1)),
        (5, (31, 48, 3, 3)),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(index: int, shape: tuple[int, ...]) -> None:
    inputs = [*random_images(4, 4, count=1), *random_layers(48, 31)]
    inputs[index] = np.ones(shape, np.float32)
    with pytest.raises(CCNetError, match="PixelMLP"):
        pixel_mlp(inputs[0], inputs[1], inputs[2:])
