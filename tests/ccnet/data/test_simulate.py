"""``ccnet simulate``: frames that ``ccnet reconstruct`` reads back as the camera saw them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import TRACKS, Array, Camera, Imaging
from ccnet.data.colour.lights import find_light
from ccnet.data.datasets import Scene
from ccnet.data.readers import read_cave
from ccnet.data.simulate import frame_folders, simulate
from ccnet.runtime.io.frames import read_frame

MakeCube = Callable[..., Array]
WriteCave = Callable[[Path, Array], Path]
Ccnet = Callable[..., Any]


@pytest.fixture
def scenes(tmp_path: Path, make_cube: MakeCube, write_cave: WriteCave) -> list[Path]:
    return [
        write_cave(tmp_path / "cubes" / name, make_cube(20, 16, seed)) for seed, name in enumerate(("a_ms", "b_ms"))
    ]


def pixels(path: Path) -> Any:
    """Return the pixels that ``ccnet reconstruct`` reads: (3, H, W) integers."""
    return read_frame(path).transpose(2, 0, 1)


def test_clean_frames_equal_the_cameras_frames(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera: Camera, camera_file: Path
) -> None:
    out = tmp_path / "new" / "frames"
    result = ccnet("simulate", f"cave:{tmp_path}/cubes", "--camera", camera_file, "-o", out)
    assert result.code == 0, result.err
    assert result.out == f"{out}: 2 frames of camera, clean track\n"
    assert sorted(path.name for path in out.iterdir()) == ["a_ms.png", "b_ms.png"]
    for scene in scenes:
        frame = pixels(out / f"{scene.name}.png")
        assert frame.dtype == np.uint16
        assert np.abs(frame / 65535 - camera.frame(read_cave(scene))).max() <= 0.5 / 65535 + 1e-7


def test_real_frames_equal_those_of_training(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera: Camera, camera_file: Path
) -> None:
    def run(out: Path, seed: int) -> list[Any]:
        given = ["--camera", camera_file, "--track", "real", "--split", "val", "--seed", seed, "-o", out]
        assert ccnet("simulate", f"cave:{tmp_path}/cubes", *given).code == 0
        return [pixels(out / f"{scene.name}.png") for scene in scenes]

    first, same, other = run(tmp_path / "1", 3), run(tmp_path / "2", 3), run(tmp_path / "3", 4)
    for index, scene in enumerate(scenes):
        assert first[index].dtype == np.uint8
        np.testing.assert_array_equal(first[index], same[index])
        assert (first[index] != other[index]).any()
        seen = TRACKS["real"](camera.frame(read_cave(scene)), np.random.default_rng((3, 0, index)))
        np.testing.assert_array_equal(first[index], np.rint(seen * 255))


def test_several_cameras_get_a_folder_each(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera: Camera, camera_file: Path
) -> None:
    many, light = tmp_path / "many", tmp_path / "lamp.npz"
    many.mkdir()
    np.savez(many / "other one.npz", filters=camera.response[:, ::-1])
    np.savez(light, power=np.arange(1, 32))
    given = ["--camera", many, "--camera", camera_file, "--illuminant", light, "-o", tmp_path / "out"]
    result = ccnet("simulate", f"cave:{tmp_path}/cubes", *given)
    folders = [tmp_path / "out" / name for name in ("other_one_under_lamp", "camera_under_lamp")]
    assert [line.split(":")[0] for line in result.out.splitlines()] == list(map(str, folders))
    for scene in scenes:
        reverse, straight = (pixels(folder / f"{scene.name}.png") for folder in folders)
        np.testing.assert_array_equal(reverse, straight[::-1])


def test_light_has_the_names_of_camera_fit(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera: Camera, camera_file: Path
) -> None:
    lights = ("--camera", camera_file, "--illuminant", "tungsten", "-o", tmp_path / "out")
    assert ccnet("simulate", f"cave:{tmp_path}/cubes", *lights).code == 0
    expected = camera.under(find_light("tungsten")).frame(read_cave(scenes[0]))
    np.testing.assert_allclose(pixels(tmp_path / "out" / f"{scenes[0].name}.png") / 65535, expected, atol=1e-5)


def test_camera_name_cannot_leave_the_output_folder(tmp_path: Path, camera: Camera) -> None:
    names = ["../../etc", "..", "/", "Nikon Z f", "X-T3"]
    folders = frame_folders([replace(camera, name=name) for name in [*names[:2], *names[3:]]], tmp_path)
    assert [folder.name for folder in folders] == ["etc", "camera", "Nikon_Z_f", "X-T3"]
    assert {folder.parent for folder in folders} == {tmp_path}
    with pytest.raises(CCNetError, match="camera: two cameras have this name"):
        frame_folders([replace(camera, name=name) for name in names], tmp_path)


def test_two_scenes_with_the_same_name_are_refused(tmp_path: Path, camera: Camera, make_cube: MakeCube) -> None:
    scenes = [Scene(name="a", read_cube=partial(make_cube, 16, 16)) for _ in range(2)]
    with pytest.raises(CCNetError, match=r"a\.png: two scenes have this name"):
        list(simulate(scenes, [camera], Imaging(), tmp_path / "out", 0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "cubes"}, "data is 'cubes'"),
        ({"--camera": "nowhere.json"}, "nowhere.json: no such file, expected a camera response"),
        ({"--illuminant": "nowhere.csv"}, "nowhere.csv: no such file, expected an illuminant"),
        ({"--illuminant": "moon"}, "light 'moon' is not known, expected daylight"),
        ({"--track": "raw"}, "--track"),
    ],
)
def test_invalid_argument_is_one_line(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera_file: Path, changes: dict[str, str], words: str
) -> None:
    given = {"source": f"cave:{tmp_path}/cubes", "--camera": camera_file, "--track": "clean"} | changes
    options = [word for name, value in given.items() if name != "source" for word in (name, value)]
    result = ccnet("simulate", given["source"], *options, "-o", tmp_path / "out")
    assert result.code == 2
    assert words in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_created_is_one_line(
    tmp_path: Path, ccnet: Ccnet, scenes: list[Path], camera_file: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = ccnet("simulate", f"cave:{tmp_path}/cubes", "--camera", camera_file, "-o", tmp_path / "file" / "out")
    assert result.code == 2
    assert "cannot be made" in result.err
