"""Tiles of cubes: which there are, how they are kept, and that a large cube is not loaded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.apps.view import scene as module
from ccnet.runtime.apps.view import statistics
from ccnet.runtime.apps.view.layers import Layer, draw_tile, natural_colours, tile_numbers
from ccnet.runtime.apps.view.palettes import MISSING
from ccnet.runtime.apps.view.scene import Scene, ShownCube
from ccnet.runtime.apps.view.statistics import errors, value_range
from ccnet.runtime.apps.view.web import describe_scene, encode_png
from ccnet.runtime.io.formats.mapped_cube import MappedCube, Selection
from tests.runtime.io.cube_files import cube_of

from .scenes import NM, shown


class CountingCube:
    """A cube of 100 Mpx whose values are computed where they are read."""

    shape = (31, 10_000, 10_000)

    def __init__(self) -> None:
        self.read_values = 0

    def read(self, bands: Sequence[int], rows: Selection, columns: Selection) -> module.Array:
        self.read_values += len(bands) * len(rows) * len(columns)
        plane = np.add.outer(np.arange(len(rows)), np.arange(len(columns))).astype(np.float32)
        return np.stack([plane % 7 / 10 + band / 100 for band in bands])

    def shown(self) -> ShownCube:
        return ShownCube(name="large", cube=MappedCube(self.shape, NM, self.read))


@pytest.mark.parametrize(("side", "levels"), [(1, 1), (256, 1), (257, 2), (512, 2), (513, 3), (1024, 3), (10_000, 7)])
def test_last_level_is_one_tile(side: int, levels: int) -> None:
    cube = ShownCube(name="", cube=MappedCube((31, 16, side), NM, CountingCube().read))
    assert cube.levels == levels
    _, columns = module.tile_selection(cube, levels - 1, 0, 0)
    assert len(columns) <= module.TILE_PX and columns.stop == side


def test_large_cube_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_ERROR_PX", 1 << 18)
    large = CountingCube()
    scene = Scene([large.shown(), large.shown()])
    draw_tile(scene, Layer(kind="natural"), 6, 0, 0)
    draw_tile(scene, Layer(kind="band", bands=(3,), palette="grey"), 0, 39, 39)
    value_range(scene, Layer(kind="ratio", bands=(3, 4)))
    assert errors(scene, 0, 1)["step"] == 32
    assert large.read_values < 0.01 * np.prod(large.shape)


def test_bands_of_a_tile_are_read_once() -> None:
    large = CountingCube()
    scene = Scene([large.shown()])
    for _ in range(3):
        draw_tile(scene, Layer(kind="natural"), 6, 0, 0)
        draw_tile(scene, Layer(kind="ratio", bands=(25, 15)), 6, 0, 0)
    assert large.read_values <= 31 * 157 * 157


def test_cache_drops_what_was_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_BYTES", 3 * 4 * 256 * 256)
    large = CountingCube()
    scene = Scene([large.shown()])
    for band in (0, 1, 2, 0, 3, 0):  # 3 drops 1
        scene.tile(scene.cubes[0], [band], 0, 0, 0)
    assert large.read_values == 4 * 256 * 256
    scene.tile(scene.cubes[0], [1], 0, 0, 0)
    assert large.read_values == 5 * 256 * 256


def test_values_without_data_are_transparent() -> None:
    cube = cube_of()
    cube[:, 3, 4] = np.nan
    for layer in (Layer(kind="natural"), Layer(kind="false", bands=(5, 6, 7)), Layer(kind="band", bands=(5,))):
        pixels = draw_tile(Scene([shown(cube)]), layer, 0, 0, 0)
        missing = pixels == MISSING if pixels.ndim == 2 else pixels[..., 3] == 0
        assert missing[3, 4] and np.count_nonzero(missing) == 1
    image = Image.open(io.BytesIO(encode_png(pixels, "viridis"))).convert("RGBA")
    assert image.getpixel((4, 3))[3] == 0 and image.getpixel((5, 3))[3] == 255


def test_exposure_makes_pictures_brighter() -> None:
    scene = Scene([shown(cube_of() / 4)])
    dark, bright = (draw_tile(scene, Layer(kind="natural", gain=gain), 0, 0, 0)[..., :3] for gain in (1, 2))
    assert (bright >= dark).all() and bright.mean() > dark.mean() + 20


def test_ranges_leave_out_extremes_and_centre_differences() -> None:
    cube = cube_of(100, 100)
    cube[3, 0, 0] = 1e6
    scene = Scene([shown(cube), shown(cube_of(100, 100, 1))])
    assert value_range(scene, Layer(kind="band", bands=(3,)))["high"] < 1.1
    signed = value_range(scene, Layer(kind="signed", bands=(3,), other=1))
    assert signed["low"] == -signed["high"]
    flat = Scene([shown(np.zeros((31, 4, 4), np.float32))])
    limits = value_range(flat, Layer(kind="band", bands=(0,)))
    assert limits["low"] < limits["high"]


def test_bands_between_those_of_the_network_have_colours_too() -> None:
    nm = np.arange(405, 700, 5.0)
    cube = ShownCube(name="", cube=MappedCube((len(nm), 4, 4), nm, CountingCube().read))
    np.testing.assert_allclose(natural_colours(cube).sum(axis=1), 1, rtol=1e-5)  # white stays white


def test_live_scene_replaces_its_cube() -> None:
    scene = Scene([], live=True)
    with pytest.raises(CCNetError, match="not on the page"):
        scene.cube(0)
    for seed in (0, 1):
        scene.show(shown(cube_of(seed=seed)), f"frame {seed}")
        assert np.array_equal(scene.tile(scene.cube(0), [2], 0, 0, 0)[0], cube_of(seed=seed)[2])
    assert scene.status == "frame 1" and len(scene.cubes) == 1


def test_equal_cubes_of_a_group_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 256 cubes must not compare each with each."""
    calls: list[object] = []

    def count(*arguments: object) -> bool:
        calls.append(arguments)
        return bool(allclose(*arguments))  # type: ignore[call-overload] # as it is called

    allclose = np.allclose
    monkeypatch.setattr(np, "allclose", count)
    one, near, other = shown(cube_of()), shown(cube_of(seed=1)), shown(cube_of()[:4])
    near = replace(near, cube=replace(near.cube, wavelengths=NM + 1e-4))  # as float32 wavelengths differ
    cubes = [one, near, other, *(replace(one) for _ in range(60))]
    answer = [each["comparable"] for each in describe_scene(Scene(cubes))["cubes"]]
    assert answer[2] == [] and answer[1] == [0, *range(3, 63)]
    assert answer[62] == [0, 1, *range(3, 62)]
    assert len(calls) < 2 * len(cubes)


def test_pictures_are_means_and_numbers_pixels() -> None:
    """A cube with overviews is compared with others pixel by pixel, also where a picture of it is kept already."""
    cube = cube_of(300, 300)
    plain = shown(cube)

    def read_means(bands: Sequence[int], rows: Selection, columns: Selection) -> module.Array:
        return np.full((len(bands), len(rows), len(columns)), 0.5, np.float32)

    scene = Scene([replace(plain, cube=replace(plain.cube, read_means=read_means)), plain])
    thin = draw_tile(scene, Layer(kind="natural"), 1, 0, 0)
    assert (thin == thin[0, 0]).all()
    assert not (draw_tile(scene, Layer(kind="natural"), 0, 0, 0) == thin[0, 0]).all()  # all pixels: no means
    for kind in ("signed", "mrae"):
        bands = (3,) if kind == "signed" else ()
        assert not tile_numbers(scene, Layer(kind=kind, bands=bands, other=1), 1, 0, 0).any()  # type: ignore[arg-type]
    np.testing.assert_array_equal(tile_numbers(scene, Layer(kind="band", bands=(3,)), 1, 0, 0), cube[3, ::2, ::2])
