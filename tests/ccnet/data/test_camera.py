"""Camera responses and the frames made with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.data.camera import TRACKS, Array, Camera, Illuminant, Imaging, read_cameras, read_illuminant

MakeCube = Callable[..., Array]


def test_camera_is_read_and_normalised(camera: Camera, camera_file: Path) -> None:
    assert Camera.read(camera_file).name == "camera"
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)
    np.savez(camera_file, filters=camera.response * 7)  # a gain, and no bands
    np.testing.assert_allclose(Camera.read(camera_file).response, camera.response, rtol=1e-6)


GOOD = np.ones((31, 3))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"response": GOOD}, "not a camera response"),
        ({"filters": GOOD.T}, r"arrays are \(3, 31\), expected \(31, 3\)"),
        ({"filters": np.ones((33, 3))}, r"arrays are \(33, 3\), expected \(31, 3\)"),
        ({"power": np.ones(31)}, r"channels are \['power'\], expected one each of R, G and B"),
        ({"filters": GOOD, "bands": np.arange(700, 399, -10)}, "do not ascend"),
        ({"filters": GOOD, "bands": np.arange(400, 555, 5)}, "from 400 to 550 nm"),
        ({"filters": GOOD * np.nan}, "NaN or infinite"),
        ({"filters": GOOD - 2}, "values go to -1"),
        ({"filters": GOOD * [1, 0, 1]}, "a curve of zeros"),
        ({"filters": np.full((31, 3), "x")}, "not a camera response"),
        ({"filters": np.array([{}], object)}, "not a camera response"),
    ],
)
def test_invalid_camera_response_is_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path = tmp_path / "camera.npz"
    np.savez(path, **arrays)
    refusal(path, words)


def test_file_that_is_not_a_camera_response_is_refused(tmp_path: Path, camera_file: Path) -> None:
    refusal(tmp_path / "nowhere.npz", "no such file, expected a camera response")
    whole = camera_file.read_bytes()
    np.save(tmp_path / "array.npy", GOOD)
    for data in (b"", b"PK\x03\x04", b"text", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()):
        camera_file.write_bytes(data)
        refusal(camera_file, "not a camera response")


def refusal(path: Path, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        read_cameras([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def write_csv(path: Path, header: str, columns: Any) -> Path:
    rows = [",".join(map(str, [nm, *row])) for nm, row in zip(BANDS_NM, np.asarray(columns).tolist(), strict=True)]
    path.write_text("\n".join([header, *rows]))
    return path


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("nm,R,G,B", [0, 1, 2]),
        ("Wavelength [nm], Blue ,GREEN,red", [2, 1, 0]),
        ("Wavelength[nm],R,G1,G2,B", [0, 1, 0, 2]),  # NTIRE 2022's camera
        ("x,temperature,b,g,r", [0, 2, 1, 0]),
    ],
)
def test_channels_are_identified_by_name(tmp_path: Path, camera: Camera, header: str, order: list[int]) -> None:
    path = write_csv(tmp_path / "a.csv", header, camera.response[:, order])
    np.testing.assert_allclose(Camera.read(path).response, camera.response, rtol=1e-5)


@pytest.mark.parametrize("header", ["nm,X,Y,Z", "nm,R,G,IR", "nm,R,G,green,B", "400,0.1,0.2,0.3"])
def test_missing_or_duplicate_channel_is_refused(tmp_path: Path, header: str) -> None:
    path = write_csv(tmp_path / "a.csv", header, np.ones((31, header.count(","))))
    refusal(path, r"channels are \['.*'\], expected one each of R, G and B")


def test_folder_means_all_its_cameras(tmp_path: Path, camera: Camera, camera_file: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    refusal(folder, "holds no camera response, expected one of .json")
    for name in ("b.csv", "a.CSV"):
        write_csv(folder / name, "nm,R,G,B", camera.response)
    (folder / "README.md").write_text("not a camera")
    assert [each.name for each in read_cameras([camera_file, folder])] == ["camera", "a", "b"]
    write_csv(folder / "c.csv", "nm,R,G", np.ones((31, 2)))
    refusal(folder, "c.csv: channels are")


def test_illuminant_weights_the_bands_and_white_stays_white(
    tmp_path: Path, camera: Camera, make_cube: MakeCube
) -> None:
    response = write_csv(tmp_path / "camera.csv", "nm,R,G,B", camera.response)
    power = np.linspace(0.1, 3, 31)
    light = write_csv(tmp_path / "lamp.csv", "nm,power", power[:, None])
    (seen,) = read_cameras([response], read_illuminant(light))
    assert seen.name == "camera under lamp"
    cube = make_cube(3, 5)
    for channel in range(3):
        weights = camera.response[:, channel] * power
        expected = sum(weights[band] * cube[band] for band in range(31)) / weights.sum()
        np.testing.assert_allclose(seen.frame(cube)[channel], expected, rtol=1e-5)
    np.testing.assert_allclose(seen.frame(np.ones((31, 1, 1), np.float32)), 1, rtol=1e-6)
    np.testing.assert_allclose(camera.under(Illuminant(name="E", power=np.ones(31))).response, camera.response, 1e-6)


def test_illuminant_is_read_from_each_layout(tmp_path: Path) -> None:
    power = np.linspace(1, 2, 31)
    main = {str(nm): [value] for nm, value in zip(BANDS_NM, power.tolist(), strict=True)}
    text = json.dumps({"spectral_data": {"index": {"main": ["power"]}, "data": {"main": main}}})
    (tmp_path / "a.json").write_text(text)
    np.savez(tmp_path / "b.npz", power=power)
    write_csv(tmp_path / "c.csv", "nm,whatever", power[:, None])
    write_csv(tmp_path / "d.csv", "nm,error,Power", np.stack([power * 0 + 9, power], 1))
    for name in ("a.json", "b.npz", "c.csv", "d.csv"):
        light = read_illuminant(tmp_path / name)
        assert light.name == name[0]
        np.testing.assert_allclose(light.power * 2, power, rtol=1e-12)


def test_invalid_illuminant_is_refused(tmp_path: Path, camera: Camera) -> None:
    for header in ("nm,a,b", "nm,R,G,B"):
        path = write_csv(tmp_path / "a.csv", header, np.ones((31, header.count(","))))
        with pytest.raises(CCNetError, match=r"curves are \['.*'\], expected a single one, or one called power"):
            read_illuminant(path)
    sharp = Camera(name="sharp", response=np.eye(31, dtype=np.float32)[:, [25, 15, 5]])
    blue = Illuminant(name="blue", power=np.eye(31)[5])
    with pytest.raises(CCNetError, match="blue lights no band that a channel of sharp sees"):
        sharp.under(blue)


def test_measured_cameras_are_normalised_and_plausible(shared: Path) -> None:
    folder = shared / "cameras"
    (light,) = sorted((folder / "illuminant").glob("*.json"))
    plain, lit = read_cameras([folder / "camera"]), read_cameras([folder / "camera"], read_illuminant(light))
    assert len({camera.name for camera in plain}) == len(plain) == 52
    assert "Nikon D700" in {camera.name for camera in plain}
    for camera in (*plain, *lit):
        assert (camera.response >= 0).all()
        np.testing.assert_allclose(camera.response.sum(0), 1, rtol=1e-6)
        red, green, blue = camera.response.argmax(0)
        assert red > green > blue
    # Tungsten is red: every channel's centroid moves to longer wavelengths
    for before, after in zip(plain, lit, strict=True):
        assert (np.array(BANDS_NM) @ after.response > np.array(BANDS_NM) @ before.response).all()
    clean = np.load(folder / "cie_1964_w_gain.npz")["filters"]
    np.testing.assert_allclose(Camera.read(folder / "cie_1964_w_gain.npz").response, clean / clean.sum(0), rtol=1e-6)
    with pytest.raises(CCNetError, match=r"cmf_1931.json: channels are \['X', 'Y', 'Z'\]"):
        read_cameras([folder / "cmf"])


def test_frame_computes_eq_2(camera: Camera, make_cube: MakeCube) -> None:
    cube = make_cube(3, 5)
    frame = camera.frame(cube)
    assert frame.dtype == np.float32
    for channel in range(3):
        expected = sum(camera.response[band, channel] * cube[band] for band in range(31))
        np.testing.assert_allclose(frame[channel], expected, rtol=1e-5)


def test_flat_spectrum_is_grey_and_frames_are_clipped(camera: Camera) -> None:
    np.testing.assert_allclose(camera.frame(np.full((31, 1, 1), 0.3, np.float32)), 0.3, rtol=1e-5)
    assert camera.frame(np.full((31, 1, 1), 2, np.float32)).max() == 1
    assert camera.frame(np.full((31, 1, 1), -1, np.float32)).min() == 0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def flat(value: float, side: int = 256) -> Array:
    return np.full((3, side, side), value, np.float32)


def texture(side: int = 64) -> Array:
    """Return colour noise (3, side, side), whose edges subsampled chroma cannot represent."""
    return np.random.default_rng(1).uniform(0, 1, (3, side, side)).astype(np.float32)


def test_clean_track_adds_nothing(rng: np.random.Generator) -> None:
    frame = texture()
    before = rng.bit_generator.state
    np.testing.assert_array_equal(TRACKS["clean"](frame, rng), texture())
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9])
def test_noise_has_shot_and_read_variance(rng: np.random.Generator, value: float) -> None:
    """The variance in electrons is the signal (shot noise) plus the squared read noise; the mean stays."""
    noisy = Imaging(full_well=1000, read_noise=5)(flat(value), rng)
    electrons = 1000 * noisy.astype(np.float64)
    pixels = noisy.size
    expected = 1000 * value + 25
    assert abs(electrons.mean() - 1000 * value) < 4 * np.sqrt(expected / pixels)
    assert electrons.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / pixels))
    shifted = [np.corrcoef(noisy[0].ravel(), np.roll(noisy[c], c == 0).ravel())[0, 1] for c in range(3)]
    assert np.abs(shifted).max() < 0.02  # the noise of each pixel and channel is independent


def test_black_pixels_have_read_noise_but_no_shot_noise(rng: np.random.Generator) -> None:
    assert not Imaging(full_well=1000)(flat(0), rng).any()
    dark = Imaging(full_well=1000, read_noise=5)(flat(0), rng)
    assert (dark == 0).mean() == pytest.approx(0.5, abs=0.01)  # clipped
    assert 1000 * np.sqrt((dark.astype(np.float64) ** 2).mean() * 2) == pytest.approx(5, rel=0.02)


def test_exposure_is_log_uniform_and_clips(rng: np.random.Generator) -> None:
    error = Imaging(exposure=(0.25, 4))
    factors = [float(error(flat(0.2, 1), rng)[0, 0, 0]) / 0.2 for _ in range(4000)]
    assert min(factors) == pytest.approx(0.25, rel=0.01)
    assert max(factors) == pytest.approx(4, rel=0.01)
    assert np.mean(np.log(factors)) == pytest.approx(0, abs=0.06)
    assert np.median(factors) == pytest.approx(1, abs=0.08)
    assert Imaging(exposure=(2, 2))(flat(0.7, 1), rng).max() == 1


def test_eight_bit_rounds_to_the_nearest_of_256_levels(rng: np.random.Generator) -> None:
    frame = texture()
    rounded = Imaging(eight_bit=True)(frame, rng)
    np.testing.assert_array_equal(rounded * 255, np.rint(rounded * 255))
    assert np.abs(rounded - frame).max() <= 0.5 / 255 + 1e-7
    assert len(np.unique(rounded)) > 200


def test_jpeg_error_grows_as_quality_falls(rng: np.random.Generator) -> None:
    frame = texture()
    errors = [np.abs(Imaging(eight_bit=True, jpeg=q)(frame, rng) - frame).mean() for q in (100, 65, 10)]
    assert 0.5 / 255 < errors[0] < errors[1] < errors[2]


def test_jpeg_keeps_channels_and_positions(rng: np.random.Generator) -> None:
    """A red patch in one corner stays red and in its corner."""
    frame = flat(0.2, 32)
    frame[0, :16, :16] = 0.8
    coded = Imaging(eight_bit=True, jpeg=90)(frame, rng)
    assert np.abs(coded - frame)[:, :12, :12].max() < 0.05
    assert np.abs(coded - frame)[:, 20:, 20:].max() < 0.05


def test_real_track_is_in_range_and_repeatable_by_seed() -> None:
    frame = texture()
    first, same, other = (TRACKS["real"](frame, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert first.dtype == np.float32
    assert first.shape == frame.shape
    assert 0 <= first.min() <= first.max() <= 1
    np.testing.assert_array_equal(first * 255, np.rint(first * 255))
    np.testing.assert_array_equal(frame, texture())  # the input frame is unchanged


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"exposure": (0, 1)}, "exposure is"),
        ({"exposure": (2, 1)}, "exposure is"),
        ({"exposure": (1, np.inf)}, "exposure is"),
        ({"exposure": (np.nan, 1)}, "exposure is"),
        ({"full_well": 0}, "full_well is 0"),
        ({"full_well": np.nan}, "full_well is nan"),
        ({"full_well": 1, "read_noise": -1}, "read_noise is -1"),
        ({"read_noise": 1}, "beside a full_well"),
        ({"jpeg": 65}, "with eight_bit"),
        ({"jpeg": 0, "eight_bit": True}, "jpeg is 0"),
        ({"jpeg": 101, "eight_bit": True}, "jpeg is 101"),
    ],
)
def test_invalid_imaging_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CCNetError, match=words):
        Imaging(**fields)
