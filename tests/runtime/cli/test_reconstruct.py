"""``ccnet reconstruct``: cubes from frames, and one line with exit code 2 for every error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet import __version__
from ccnet.contract import Artifact, Manifest
from ccnet.metrics.predicted_error import FEATURES, ErrorModel
from ccnet.runtime import read_cube
from ccnet.runtime.io.srgb import from_srgb
from ccnet.runtime.quality import predicted_error

Ccnet = Callable[..., Any]


@pytest.mark.parametrize("space", ["srgb", "camera"])
@pytest.mark.parametrize("suffix", ["hdr", "mat", "npy", "tif", "nc"])
def test_photograph_is_reconstructed_to_a_cube(work: Path, ccnet: Ccnet, suffix: str, space: str) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", f"photo.{suffix}", "--tile", "64", "--input-space", space)
    assert result.code == 0 and result.err == ""
    assert f"photo.{suffix}: 70×40 px" in result.out and "onnxruntime" in result.out and "fp32" in result.out
    pixels = np.asarray(Image.open("photo.png"), np.float32) / 255
    pixels = from_srgb(pixels) if space == "srgb" else pixels
    cube = read_cube(Path(f"photo.{suffix}"))
    for band, channel in ((0, 2), (15, 1), (30, 0)):
        np.testing.assert_allclose(cube[band], pixels[..., channel], atol=1e-6)


def test_cube_of_a_located_frame_is_located(work: Path, ccnet: Ccnet) -> None:
    rasterio = pytest.importorskip("rasterio", reason='rasterio is not installed: pip install ".[geo]"')
    pixels = np.asarray(Image.open("photo.png"))
    options = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 3, "dtype": "uint8", "photometric": "rgb"}
    transform = rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000)
    with rasterio.open("frame.tif", "w", driver="GTiff", crs="EPSG:32632", transform=transform, **options) as file:
        file.write(pixels.transpose(2, 0, 1))
    result = ccnet("reconstruct", "frame.tif", "-o", "cube.tif", "--input-space", "camera")
    assert result.code == 0 and result.err == ""
    with rasterio.open("cube.tif") as file:
        assert (file.count, file.crs.to_epsg(), file.transform) == (31, 32632, transform)
        assert file.tags()["ccnet_source"] == "frame.tif"
    assert "the cube would replace it" in ccnet("reconstruct", "frame.tif", "-o", "frame.tif").err


@pytest.fixture
def error_model(work: Path, stub: Any) -> ErrorModel:
    """A model of predicted errors in the artifact folder: a tenth of the brightness + 0.02."""
    coefficients = np.zeros((1 + FEATURES, 31), np.float32)
    coefficients[0] = np.log(0.1)
    model = ErrorModel(
        pixel_layers=(np.zeros((31, 3), np.float32),),
        mean=np.zeros(FEATURES, np.float32),
        spread=np.ones(FEATURES, np.float32),
        coefficients=coefficients,
        weights_sha256="5a" * 32,
    )
    folder = work / "build" / "ccnet"
    (folder / "error.npz").write_bytes(model.to_bytes())
    manifest = Manifest.read(folder)
    entry = Artifact(file="error.npz", kind="error", format="npz", precision="fp32", sha256="")
    stub.vouch(folder, replace(manifest, artifacts=(*manifest.artifacts, entry)))
    return model


@pytest.mark.parametrize("suffix", ["hdr", "npy"])
def test_predicted_error_is_a_second_cube(work: Path, ccnet: Ccnet, error_model: ErrorModel, suffix: str) -> None:
    options = ("--input-space", "camera", "--tile", "64")
    result = ccnet("reconstruct", "photo.png", "-o", f"photo.{suffix}", "--error", *options)
    assert result.code == 0 and result.err == ""
    pixels, cube = np.asarray(Image.open("photo.png"), np.float32) / 255, read_cube(Path(f"photo.{suffix}"))
    half_width = read_cube(Path(f"photo.error.{suffix}"))
    np.testing.assert_allclose(half_width[7], 0.1 * (pixels.mean(axis=2) + 0.02), rtol=1e-4)
    score = (half_width.mean(axis=0) / (cube.mean(axis=0) + 0.02)).mean()
    assert f"photo.error.{suffix}: predicted error: ± {half_width.mean():.2g} reflectance" in result.out
    if suffix == "hdr":
        assert f"predicted error = {score:.4f}" in Path("photo.error.hdr").read_text()
        assert "predicted error" not in Path("photo.hdr").read_text()


def test_predicted_error_is_written_after_its_cube(
    work: Path, ccnet: Ccnet, error_model: ErrorModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is never older than the cube's: 'ccnet view' leaves out an older one."""
    copy, complete = predicted_error._copy, []

    def observe(*arguments: Any) -> None:
        complete.append(Path("photo.hdr").is_file())
        copy(*arguments)

    monkeypatch.setattr(predicted_error, "_copy", observe)
    assert ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--error", "--tile", "64").code == 0
    assert complete == [True]


def test_predicted_error_never_replaces_another_cube(
    work: Path, ccnet: Ccnet, error_model: ErrorModel, assert_refused: Any
) -> None:
    Image.open("photo.png").save("photo.error.png")
    arguments = ("reconstruct", "photo.png", "photo.error.png", "-o", "cubes")
    assert_refused(ccnet(*arguments, "--error"), "two frames have this name")
    assert ccnet(*arguments).code == 0


def test_cube_metadata_names_its_origin(work: Path, ccnet: Ccnet) -> None:
    ccnet("reconstruct", "photo.png", "-o", "photo.hdr")
    header = Path("photo.hdr").read_text()
    for part in ("source = photo.png", f"weights sha256 = {'5a' * 8}", "onnxruntime", "fp32", f"= {__version__}"):
        assert part in header


def test_several_frames_go_into_a_folder(work: Path, ccnet: Ccnet) -> None:
    Image.open("photo.png").save("second.bmp")
    result = ccnet("reconstruct", "photo.png", "second.bmp", "-o", "cubes", "--format", "mat")
    assert result.code == 0 and result.out.count("\n") == 2
    assert {path.name for path in Path("cubes").iterdir()} == {"photo.mat", "second.mat"}


def test_one_frame_goes_into_an_existing_folder(work: Path, ccnet: Ccnet) -> None:
    Path("cubes").mkdir()
    assert ccnet("reconstruct", "photo.png", "-o", "cubes").code == 0
    assert {path.name for path in Path("cubes").iterdir()} == {"photo.hdr", "photo.img"}


@pytest.mark.parametrize("out", ["new", "new/", "new/deeper", "photo.d"])
@pytest.mark.parametrize("count", [1, 2])
def test_folder_is_made_for_one_frame_as_for_two(work: Path, ccnet: Ccnet, out: str, count: int) -> None:
    Image.open("photo.png").save("second.bmp")
    assert ccnet("reconstruct", *["photo.png", "second.bmp"][:count], "-o", out).code == 0
    assert {path.name for path in Path(out).glob("*.hdr")} == set(["photo.hdr", "second.hdr"][:count])


@pytest.mark.parametrize("option", ["--out", "--picture", "--reprojection"])
def test_every_output_makes_its_folders(work_with_camera: Path, ccnet: Ccnet, option: str) -> None:
    target = Path("new/deeper") / ("c.hdr" if option == "--out" else "c.png")
    out = () if option == "--out" else ("--out", "photo.hdr")
    assert ccnet("reconstruct", "photo.png", *out, option, target).code == 0
    assert target.is_file()


def test_frames_of_one_stem_have_their_whole_names(work: Path, ccnet: Ccnet) -> None:
    Image.open("photo.png").save("photo.bmp")
    assert ccnet("reconstruct", "photo.png", "photo.bmp", "-o", "cubes", "--format", "npy").code == 0
    assert {path.name for path in Path("cubes").iterdir()} == {"photo.png.npy", "photo.bmp.npy"}


@pytest.mark.parametrize("there", ["photo.img", "cubes/photo.img"])
def test_image_without_its_header_is_kept(work: Path, ccnet: Ccnet, assert_refused: Any, there: str) -> None:
    Path(there).parent.mkdir(exist_ok=True)
    Path(there).write_text("raw data of mine")
    assert_refused(ccnet("reconstruct", "photo.png", "-o", Path(there).with_suffix(".hdr")), "is kept")
    assert Path(there).read_text() == "raw data of mine"


def test_cube_is_replaced_by_its_own_name(work: Path, ccnet: Ccnet) -> None:
    for _ in range(2):
        assert ccnet("reconstruct", "photo.png", "-o", "photo.hdr").code == 0


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_stream_is_harmless(work: Path, closed: int) -> None:
    """Without care, the cube's file would get the number of the closed stream, and messages would go into it."""
    code = "import sys; from ccnet.runtime.cli.main import main; sys.argv[0] = 'ccnet'; main()"
    command = [sys.executable, "-c", code, "reconstruct", "photo.png", "-o", "photo.npy"]
    process = subprocess.run(command, preexec_fn=lambda: os.close(closed), capture_output=closed == 0, check=False)
    assert process.returncode == 0
    assert read_cube(Path("photo.npy")).shape == (31, 40, 70)


def test_frame_with_the_name_of_the_cubes_image_file_is_kept(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    """Frames are known by their content, and ENVI's values lie beside their header as .img."""
    Path("photo.png").rename("photo.img")
    before = Path("photo.img").read_bytes()
    assert_refused(ccnet("reconstruct", "photo.img", "-o", "photo.hdr"), "is a frame")
    assert Path("photo.img").read_bytes() == before


def test_picture_is_drawn_on_demand(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--picture", "look.png")
    assert result.code == 0 and result.out.splitlines()[-1] == "look.png"
    with Image.open("look.png") as image:
        assert image.format == "PNG"


def test_other_artifacts_can_be_named(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    Path("build/ccnet").rename("elsewhere")
    assert ccnet("reconstruct", "photo.png", "-o", "a.npy", "--artifacts", "elsewhere").code == 0
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "b.npy"), "build/ccnet: no manifest.json; expected a folder")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[..., Any], str]] = {
    "frame missing": (lambda photo: photo.unlink(), "photo.png: no such file"),
    "frame empty": (lambda photo: photo.write_bytes(b""), "photo.png: is empty"),
    "frame truncated": (lambda photo: photo.write_bytes(photo.read_bytes()[:-40]), "photo.png: damaged"),
    "frame of words": (lambda photo: photo.write_text("hello " * 9), "photo.png: not one of PNG"),
    "frame grey": (lambda photo: Image.new("L", (32, 32)).save(photo), "grey"),
    "frame of one pixel": (lambda photo: Image.new("RGB", (1, 1)).save(photo), "too small"),
    "frame a folder": (make_folder, "photo.png: is a directory"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_frame_is_one_line_and_writes_nothing(
    work: Path, ccnet: Ccnet, assert_refused: Any, damage: str
) -> None:
    spoil, words = DAMAGE[damage]
    spoil(work / "photo.png")
    before = sorted(work.rglob("*"))
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "photo.hdr", "--picture", "look.png"), words)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("reconstruct", "Missing"),
        ("reconstruct photo.png", "--out"),
        ("reconstruct photo.png -o photo.webp", "unknown cube format '.webp'"),
        ("reconstruct photo.png -o /dev/null/photo.hdr", "/dev/null: cannot be made"),
        ("reconstruct photo.png -o a.npy --backend nonsense", "--backend"),
        ("reconstruct photo.png -o a.npy --backend tensorrt-rtx", "build/ccnet: "),
        ("reconstruct photo.png -o a.npy --precision fp16", "fp16"),
        ("reconstruct photo.png -o a.npy --precision int3", "--precision"),
        ("reconstruct photo.png -o a.npy --tile 33", "tile is 33 px"),
        ("reconstruct photo.png -o a.npy --tile big", "--tile"),
        ("reconstruct photo.png -o a.npy --artifacts photo.png", "no manifest.json"),
        ("reconstruct photo.png -o a.npy --error", "build/ccnet: has no predicted error"),
        ("reconstruct photo.png -o a.npy --picture look.jpg", "expected .png"),
        ("reconstruct photo.png -o a.npy --picture photo.png", "is the frame"),
        ("reconstruct photo.png -o a.npy --reprojection look.jpg", "expected .png"),
        ("reconstruct photo.png -o a.npy --reprojection photo.png", "is the frame"),
        ("reconstruct photo.png -o a.npy --consistency a.png --picture ./a.png", "both --picture and --reprojection"),
        ("reconstruct photo.png other.png -o cubes --reprojection a.png", "draws one frame, but there are 2"),
        ("reconstruct photo.png photo.png -o cubes", "two frames have this name"),
        ("reconstruct photo.png photo.png -o cubes.mat", "expected a folder"),
        ("reconstruct photo.png b/other.png -o photo.png/x", "photo.png/x"),
        ("reconstruct photo.png other.png -o cubes --picture look.png", "draws one frame, but there are 2"),
        ("reconstruct photo.npy -o photo.npy", "is a frame"),
        ("reconstruct ./photo.npy -o build/../photo.npy", "is a frame"),
    ],
)
def test_invalid_arguments_are_one_line_and_write_nothing(
    work: Path, ccnet: Ccnet, arguments: str, said: str, assert_refused: Any
) -> None:
    before = sorted(work.rglob("*"))
    assert_refused(ccnet(*arguments.split()), said)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("command", ["reconstruct photo.png -o a.npy", "stream photo.png --sink cubes"])
def test_threads_reach_onnx_runtime(
    work: Path, ccnet: Ccnet, assert_refused: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    import onnxruntime

    seen = []
    session = onnxruntime.InferenceSession

    def spy(model: Any, options: Any, **others: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return session(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    assert ccnet(*command.split(), "--threads", "1").code == 0
    assert seen and set(seen) == {1}
    assert_refused(ccnet(*command.split(), "--threads", "0"), "--threads")


NAMES = [b"ros\xe9.png", "rosé.png".encode(), "写真.png".encode(), b"\xff\xfe.png", b"a\tb {c}.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["hdr", "mat", "npy"])
def test_frame_with_any_name_is_reconstructed(work: Path, ccnet: Ccnet, name: bytes, suffix: str) -> None:
    source = Path(os.fsdecode(name))
    Path("photo.png").rename(source)
    assert ccnet("reconstruct", source, "-o", f"c.{suffix}", "--picture", "p.png").code == 0
    assert ccnet("reconstruct", source, "-o", "cubes", "--format", suffix).code == 0
    assert (Path("cubes") / f"{source.stem}.{suffix}").is_file()
    assert read_cube(f"c.{suffix}").shape == (31, 40, 70)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sink", ["cubes", "cubes.zarr"])
def test_frame_with_any_name_is_streamed(work: Path, ccnet: Ccnet, name: bytes, sink: str) -> None:
    source = Path(os.fsdecode(name))
    Path("photo.png").rename(source)
    result = ccnet("stream", source, "--sink", sink, "--format", "mat")
    assert result.code == 0 and "1 delivered" in result.out
    if sink == "cubes.zarr":
        attributes = (Path(sink) / "00000000" / "zarr.json").read_bytes().decode("utf-8")
        assert "\\ud" not in attributes.replace("\\\\ud", "")
