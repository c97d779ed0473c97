"""Data sets in their published layouts, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.data.camera import Array
from ccnet.data.datasets import Split, cave_scenes, open_source
from ccnet.data.patches import SceneDataset

MakeCube = Callable[..., Array]
Write = Callable[..., Path]

STEMS = ("ARAD_1K_0001", "ARAD_1K_0002", "ARAD_1K_0901")


def refusal(source: str, words: str, split: Split = "train") -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        open_source(source, split)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def write_frame(path: Path, seed: int = 0, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def names(source: str, split: Split) -> list[str]:
    return [scene.name for scene in open_source(source, split)]


@pytest.mark.parametrize("source", ["", "cave", "cave:", "/data/cave", "icvl:/data", "CAVE:/data"])
def test_unknown_source_lists_the_known_kinds(source: str) -> None:
    refusal(source, "expected KIND:PATH with one of the kinds cave, envi, ntire2020-clean, ntire2020-real, ntire2022")


@pytest.mark.parametrize("kind", ["cave", "envi", "ntire2020-clean", "ntire2020-real", "ntire2022"])
@pytest.mark.parametrize("path", ["nowhere", "nowhere.hdr", "x" * 300, "a\0b"])
def test_missing_folder_is_named(tmp_path: Path, kind: str, path: str) -> None:
    with pytest.raises(CCNetError) as caught:
        open_source(f"{kind}:{tmp_path / path}", "train")
    assert str(caught.value).startswith(str(tmp_path / path))


# ---------------------------------------------------------------------------------------------------------------------
# NTIRE 2022


@pytest.fixture
def arad_1k(tmp_path: Path, make_cube: MakeCube, write_mat73: Write) -> Path:
    """Write the layout of MST++, where the validation files lie among the training files."""
    for seed, stem in enumerate((*STEMS, "ARAD_1K_0314")):
        write_mat73(tmp_path / "Train_Spec" / f"{stem}.mat", make_cube(12, 16, seed))
        write_frame(tmp_path / "Train_RGB" / f"{stem}.jpg", seed)
    (tmp_path / "split_txt").mkdir()
    (tmp_path / "split_txt" / "train_list.txt").write_text("ARAD_1K_0001\nARAD_1K_0002\n")
    (tmp_path / "split_txt" / "valid_list.txt").write_text("ARAD_1K_0901\n")
    return tmp_path


def test_split_lists_choose_the_scenes(arad_1k: Path, make_cube: MakeCube) -> None:
    """ARAD_1K_0314 is on neither list and therefore in neither split."""
    train = open_source(f"ntire2022:{arad_1k}", "train")
    assert [scene.name for scene in train] == list(STEMS[:2])
    assert names(f"ntire2022:{arad_1k}", "val") == ["ARAD_1K_0901"]
    np.testing.assert_array_equal(train[1].read_cube(), make_cube(12, 16, 1))
    seen = cv2.imread(str(arad_1k / "Train_RGB" / "ARAD_1K_0002.jpg"))[..., ::-1].transpose(2, 0, 1)
    assert train[1].read_frame is not None
    np.testing.assert_allclose(train[1].read_frame() * 255, seen, rtol=0, atol=1)


@pytest.mark.parametrize(
    ("spectral", "rgb"),
    [("Valid_Spec", "Valid_RGB"), ("Valid_spectral", "Valid_RGB"), ("valid_spec/Valid_spec", "Valid_RGB/Valid_RGB")],
)
def test_validation_files_in_separate_folders_are_found(arad_1k: Path, spectral: str, rgb: str) -> None:
    for old, new, ending in (("Train_Spec", spectral, ".mat"), ("Train_RGB", rgb, ".jpg")):
        (arad_1k / new).mkdir(parents=True)
        (arad_1k / old / f"ARAD_1K_0901{ending}").rename(arad_1k / new / f"ARAD_1K_0901{ending}")
    (scene,) = open_source(f"ntire2022:{arad_1k}", "val")
    assert scene.read_cube().shape == (31, 12, 16)
    assert scene.read_frame is not None
    assert scene.read_frame().shape == (3, 12, 16)


@pytest.mark.parametrize(
    "text",
    [
        "ARAD_1K_0002\r\nARAD_1K_0001\r\n",
        "\n ARAD_1K_0002.mat \n\nARAD_1K_0001.mat",
        "\ufeffARAD_1K_0002.jpg\nARAD_1K_0001",
    ],
    ids=["CRLF", "blank lines and .mat", "BOM and .jpg"],
)
def test_split_list_from_other_editors_is_read(arad_1k: Path, text: str) -> None:
    (arad_1k / "split_txt" / "train_list.txt").write_bytes(text.encode())
    assert names(f"ntire2022:{arad_1k}", "train") == ["ARAD_1K_0002", "ARAD_1K_0001"]


def test_missing_file_is_named_before_training(arad_1k: Path) -> None:
    source, split = f"ntire2022:{arad_1k}", arad_1k / "split_txt"
    (arad_1k / "Train_RGB" / "ARAD_1K_0002.jpg").unlink()
    refusal(source, f"{arad_1k}/Train_RGB/ARAD_1K_0002.jpg: no such file")
    (arad_1k / "Train_Spec" / "ARAD_1K_0002.mat").unlink()
    refusal(source, f"{arad_1k}/Train_Spec/ARAD_1K_0002.mat: no such file")
    (arad_1k / "Train_Spec" / "ARAD_1K_0901.mat").unlink()
    refusal(source, f"{arad_1k}/Valid_Spec/ARAD_1K_0901.mat: no such file", "val")
    (split / "train_list.txt").write_text(" \n\n")
    refusal(source, f"{split}/train_list.txt: is empty, expected a list of scenes")
    (split / "train_list.txt").write_bytes(b"\xff\xfe\x00")
    refusal(source, f"{split}/train_list.txt: .*, expected a list of scenes")
    (split / "train_list.txt").unlink()
    refusal(source, f"{split}/train_list.txt: damaged, missing, .*, expected a list of scenes, one a line, as MST")


def test_files_are_read_only_when_needed(arad_1k: Path) -> None:
    (arad_1k / "Train_Spec" / "ARAD_1K_0001.mat").write_bytes(b"not a cube")
    (arad_1k / "Train_RGB" / "ARAD_1K_0001.jpg").write_bytes(b"not a frame")
    scene = open_source(f"ntire2022:{arad_1k}", "train")[0]
    assert scene.read_frame is not None
    for read, file in (
        (scene.read_cube, "Train_Spec/ARAD_1K_0001.mat"),
        (scene.read_frame, "Train_RGB/ARAD_1K_0001.jpg"),
    ):
        with pytest.raises(CCNetError, match=file):
            read()


def test_cubes_without_frames_need_a_camera(arad_1k: Path) -> None:
    (arad_1k / "Train_RGB").rename(arad_1k / "elsewhere")
    scenes = open_source(f"ntire2022:{arad_1k}", "train")
    assert [scene.read_frame for scene in scenes] == [None, None]
    with pytest.raises(CCNetError, match="ARAD_1K_0001 has no frame of its own"):
        SceneDataset(scenes=scenes)


def test_frame_of_another_size_than_its_cube_is_refused(arad_1k: Path) -> None:
    write_frame(arad_1k / "Train_RGB" / "ARAD_1K_0002.jpg", size=(16, 12))
    views = SceneDataset(scenes=open_source(f"ntire2022:{arad_1k}", "train"))
    views.pair(0)
    with pytest.raises(CCNetError, match=r"ARAD_1K_0002: frame is \(16, 12\), cube \(12, 16\)"):
        views.pair(1)


# ---------------------------------------------------------------------------------------------------------------------
# NTIRE 2020

TRACKS = pytest.mark.parametrize(
    ("track", "folder", "ending"),
    [("clean", "Clean", "_clean.png"), ("real", "RealWorld", "_RealWorld.jpg")],
)


@pytest.fixture
def arad_hs(tmp_path: Path, make_cube: MakeCube, write_mat5: Write) -> Path:
    """Write both tracks in the layout of the unpacked archives."""
    for seed, (part, stem) in enumerate(
        [("Train", "ARAD_HS_0002"), ("Train", "ARAD_HS_0001"), ("Validation", "ARAD_HS_0451")]
    ):
        write_mat5(tmp_path / f"NTIRE2020_{part}_Spectral" / f"{stem}.mat", make_cube(12, 16, seed))
        write_frame(tmp_path / f"NTIRE2020_{part}_Clean" / f"{stem}_clean.png", seed)
        write_frame(tmp_path / f"NTIRE2020_{part}_RealWorld" / f"{stem}_RealWorld.jpg", seed)
    (tmp_path / "NTIRE2020_Train_Spectral" / "._ARAD_HS_0001.mat").write_bytes(b"what macOS leaves beside a file")
    return tmp_path


@TRACKS
def test_each_track_reads_its_own_frames(
    arad_hs: Path, make_cube: MakeCube, track: str, folder: str, ending: str
) -> None:
    train = open_source(f"ntire2020-{track}:{arad_hs}", "train")
    assert [scene.name for scene in train] == ["ARAD_HS_0001", "ARAD_HS_0002"]
    assert names(f"ntire2020-{track}:{arad_hs}", "val") == ["ARAD_HS_0451"]
    np.testing.assert_array_equal(train[0].read_cube(), make_cube(12, 16, 1))
    seen = cv2.imread(str(arad_hs / f"NTIRE2020_Train_{folder}" / f"ARAD_HS_0001{ending}"))[..., ::-1].transpose(
        2, 0, 1
    )
    assert train[0].read_frame is not None
    np.testing.assert_allclose(train[0].read_frame() * 255, seen, rtol=0, atol=1)


@TRACKS
def test_cube_without_frame_or_frame_without_cube_is_refused(
    arad_hs: Path, track: str, folder: str, ending: str
) -> None:
    source = f"ntire2020-{track}:{arad_hs}"
    cube = arad_hs / "NTIRE2020_Train_Spectral" / "ARAD_HS_0002.mat"
    frame = arad_hs / f"NTIRE2020_Train_{folder}" / f"ARAD_HS_0001{ending}"
    content = cube.read_bytes()
    cube.unlink()
    refusal(source, f"{cube}: no such file")
    cube.write_bytes(content)
    frame.unlink()
    refusal(source, f"{frame}: no such file")
    cube.parent.rename(arad_hs / "elsewhere")
    refusal(source, f"{cube.parent}: holds no cube, expected ARAD_HS_0001.mat")


def test_cube_of_matlab_73_is_read_in_ntire_2020(arad_hs: Path, make_cube: MakeCube, write_mat73: Write) -> None:
    write_mat73(arad_hs / "NTIRE2020_Validation_Spectral" / "ARAD_HS_0451.mat", make_cube(12, 16, 9))
    (scene,) = open_source(f"ntire2020-clean:{arad_hs}", "val")
    np.testing.assert_array_equal(scene.read_cube(), make_cube(12, 16, 9))


# ---------------------------------------------------------------------------------------------------------------------
# CAVE


def test_cave_scenes_are_found_in_order_at_any_depth(tmp_path: Path, make_cube: MakeCube, write_cave: Write) -> None:
    """The original release has NAME_ms/NAME_ms/NAME_ms_01.png."""
    cube = make_cube(4, 4)
    for name in ("b_ms", "a_ms", "c_ms/c_ms"):
        write_cave(tmp_path / name, cube)
    (tmp_path / "readme.txt").write_text("not a scene")
    assert cave_scenes(tmp_path) == [tmp_path / "a_ms", tmp_path / "b_ms", tmp_path / "c_ms" / "c_ms"]
    scenes = open_source(f"cave:{tmp_path}", "train")
    assert [scene.name for scene in scenes] == ["a_ms", "b_ms", "c_ms"]
    np.testing.assert_allclose(scenes[2].read_cube(), cube, rtol=0, atol=1e-5)


def test_cave_folder_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    refusal(f"cave:{tmp_path / 'nowhere'}", "no such folder, expected one with CAVE scenes")
    refusal(f"cave:{tmp_path}", "holds no CAVE scene")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", ["cave", "envi"])
def test_folder_that_holds_train_and_val_is_refused(
    tmp_path: Path, make_cube: MakeCube, write_cave: Write, write_envi: Write, kind: str, split: Split
) -> None:
    """Neither data set has a published split, so that both splits would be all scenes."""
    for name in ("train", "val"):
        write_cave(tmp_path / name / f"{name}_ms", make_cube(4, 4))
        write_envi(tmp_path / name / f"{name}.hdr", make_cube(4, 4))
    refusal(f"{kind}:{tmp_path}", f"has the folders train and val, .*: {kind}:{tmp_path}/train or", split)
    (scene,) = open_source(f"{kind}:{tmp_path / split}", split)
    assert scene.name.startswith(split)


def test_watercolors_and_missing_band_are_refused_before_training(
    tmp_path: Path, make_cube: MakeCube, write_cave: Write
) -> None:
    write_cave(tmp_path / "beads_ms", make_cube(4, 4))
    scene = write_cave(tmp_path / "watercolors_ms" / "watercolors_ms", make_cube(4, 4))
    (scene / "watercolors_ms_31.png").unlink()
    refusal(f"cave:{tmp_path}", f"{scene}: has 0 files for band 31")
    for band in range(1, 32):
        cv2.imwrite(str(scene / f"watercolors_ms_{band:02d}.png"), np.zeros((4, 4, 4), np.uint8))
    refusal(f"cave:{tmp_path}", f"{scene}/watercolors_ms_01.png: uint8 .* 16-bit grey PNG; leave its scene out")


# ---------------------------------------------------------------------------------------------------------------------
# ENVI


def test_envi_source_is_a_header_or_a_folder_of_headers(tmp_path: Path, make_cube: MakeCube, write_envi: Write) -> None:
    for seed, name in enumerate(("b.hdr", "a.hdr", "more/c.HDR")):
        write_envi(tmp_path / name, make_cube(4, 4, seed))
    scenes = open_source(f"envi:{tmp_path}", "train")
    assert [scene.name for scene in scenes] == ["a", "b", "c"]
    (scene,) = open_source(f"envi:{tmp_path / 'b.hdr'}", "val")
    assert scene.name == "b"
    np.testing.assert_array_equal(scene.read_cube(), make_cube(4, 4, 0))


def test_invalid_envi_header_is_refused_before_training(tmp_path: Path, make_cube: MakeCube, write_envi: Write) -> None:
    refusal(f"envi:{tmp_path}", "holds no ENVI cube")
    write_envi(tmp_path / "a.hdr", make_cube(4, 4))
    write_envi(tmp_path / "b.hdr", (make_cube(4, 4) * 4095).astype(np.uint16))
    refusal(f"envi:{tmp_path}", "b.hdr: uint16 without 'reflectance scale factor'")
    (tmp_path / "a.img").unlink()
    refusal(f"envi:{tmp_path}", "a.img: no such file, expected the values of a.hdr")
