"""The operator BandCosine: cosines of keys and queries from the Gram matrices of the bands, compared with float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators

pytestmark = pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")

Array = npt.NDArray[np.float32]


def band_cosine(x: Array, keys: Array, queries: Array, bands: int) -> npt.NDArray[Any]:
    node = onnx.helper.make_node("BandCosine", ["x", "keys", "queries"], ["y"], domain="ccnet", bands=bands)
    graph = onnx.helper.make_graph(
        [node],
        "cosine",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None] * x.ndim)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(keys, "keys"), onnx.numpy_helper.from_array(queries, "queries")],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ccnet", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with OnnxRuntimeBackend(model.SerializeToString(), threads=2) as opened:
        return opened.run({"x": x})["y"]


def reference(x: Array, keys: Array, queries: Array, bands: int) -> npt.NDArray[np.float64]:
    """Return the cosines of the features themselves, (B, C / bands, bands, bands)."""
    images, channels = x.shape[:2]
    grouped = x.astype(np.float64).reshape(images, channels // keys.shape[1], keys.shape[1], -1)
    heads = []
    for maps in (keys, queries):
        features = maps.astype(np.float64).reshape(-1, keys.shape[1], keys.shape[1]) @ grouped
        features /= np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
        heads.append(features.reshape(images, channels // bands, bands, -1))
    return heads[0] @ heads[1].swapaxes(-1, -2)


def random_maps(channels: int, group: int) -> tuple[Array, Array]:
    random = np.random.default_rng(channels)
    keys, queries = random.standard_normal((2, channels, group, 1, 1)).astype(np.float32)
    return keys, queries


@pytest.mark.parametrize(
    ("channels", "group", "bands"), [(32, 8, 8), (64, 16, 8), (24, 12, 4), (8, 8, 1), (128, 128, 32)]
)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (61, 151)])  # less than a run, and three jobs
def test_cosines_are_those_of_the_features(channels: int, group: int, bands: int, height: int, width: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, channels, height, width), np.float32)
    found = band_cosine(x, *random_maps(channels, group), bands)
    np.testing.assert_allclose(found, reference(x, *random_maps(channels, group), bands), rtol=0, atol=5e-7)


def test_differences_of_bands_that_are_nearly_alike_keep_their_digits() -> None:
    """Their squares are 1e-10 of the bands': a sum in float32 would be noise."""
    random = np.random.default_rng(1)
    x = 1 + 1e-5 * random.standard_normal((1, 8, 80, 80)).astype(np.float32)
    difference = (np.eye(8) - np.roll(np.eye(8), 1, axis=1)).astype(np.float32)[:, :, None, None]
    found = band_cosine(x, difference, difference, 8)
    np.testing.assert_allclose(found, reference(x, difference, difference, 8), rtol=0, atol=1e-5)


def test_the_cosine_of_a_feature_that_is_zero_everywhere_is_zero() -> None:
    x = np.random.default_rng(2).standard_normal((1, 32, 9, 9), np.float32)
    x[:, :8] = 0
    found = band_cosine(x, *random_maps(32, 8), 8)
    assert not found[0, 0].any()
    assert found[0, 1:].all()


def test_nan_stays_in_its_image_and_group() -> None:
    x = np.random.default_rng(3).standard_normal((2, 32, 70, 70), np.float32)
    x[1, 9, 69, 69] = np.nan
    found = np.isnan(band_cosine(x, *random_maps(32, 8), 8))
    assert found[1, 1].all()
    assert found.sum() == found[1, 1].size


@pytest.mark.parametrize(
    ("x", "keys", "queries", "bands"),
    [
        ((1, 36, 4, 4), (32, 8, 1, 1), (32, 8, 1, 1), 8),
        ((32, 4, 4), (32, 8, 1, 1), (32, 8, 1, 1), 8),
        ((1, 32, 4, 4), (32, 8), (32, 8, 1, 1), 8),
        ((1, 32, 4, 4), (32, 6, 1, 1), (32, 6, 1, 1), 6),
        ((1, 32, 4, 4), (32, 0, 1, 1), (32, 0, 1, 1), 8),
        ((1, 32, 4, 4), (32, 8, 1, 1), (32, 16, 1, 1), 8),
        ((1, 32, 4, 4), (32, 8, 1, 1), (32, 8, 1, 1), 3),
        ((1, 32, 4, 4), (32, 8, 1, 1), (32, 8, 1, 1), 0),
        ((1, 32, 4, 4), (32, 8, 1, 1), (32, 8, 1, 1), 16),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(
    x: tuple[int, ...], keys: tuple[int, ...], queries: tuple[int, ...], bands: int
) -> None:
    with pytest.raises(CCNetError, match="BandCosine"):
        band_cosine(*(np.ones(shape, np.float32) for shape in (x, keys, queries)), bands)
