"""Files of every format become cubes of the page; frames are reconstructed; damaged files give one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime.apps.view.opening import Opener
from ccnet.runtime.io.formats.mapped_cube import Selection
from ccnet.runtime.stream.sinks import ZarrGroup
from tests.runtime.io.cube_files import FORMATS, cube_of, save


def no_artifacts() -> Any:
    raise CCNetError("the artifacts are not needed here")


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    with closing(Opener(no_artifacts, tmp_path / "none", "srgb")) as opener:
        yield opener


def first_band(cube: Any) -> Any:
    return cube.read([0], Selection(0, cube.shape[1]), Selection(0, cube.shape[2]))[0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_cube_of_every_format_opens(opener: Opener, tmp_path: Path, suffix: str) -> None:
    (shown,) = opener.open(save(tmp_path / f"c{suffix}", cube_of()))
    np.testing.assert_array_equal(first_band(shown.cube), cube_of()[0])
    assert shown.name == f"c{suffix}"


def test_predicted_error_beside_a_cube_opens(opener: Opener, tmp_path: Path) -> None:
    path = save(tmp_path / "c.hdr", cube_of())
    assert opener.open(path)[0].error is None
    save(tmp_path / "c.error.hdr", 0.1 * cube_of())
    (shown,) = opener.open(path)
    np.testing.assert_allclose(first_band(shown.error), 0.1 * cube_of()[0], rtol=1e-6)
    save(tmp_path / "c.error.hdr", cube_of()[:, :10].copy())
    assert opener.open(path)[0].error is None  # of another size


def test_predicted_error_that_is_older_or_damaged_is_left_out(
    opener: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, beside = save(tmp_path / "c.npy", cube_of()), save(tmp_path / "c.error.npy", cube_of())
    written = path.stat().st_mtime
    os.utime(beside, (written, written))
    assert opener.open(path)[0].error is not None and not caplog.messages
    os.utime(beside, (written - 1, written - 1))
    assert opener.open(path)[0].error is None
    assert len(caplog.messages) == 1 and "c.error.npy: older than the cube" in caplog.messages[0]
    beside.write_bytes(b"damaged")
    (shown,) = opener.open(path)
    assert shown.error is None and "c.error.npy" in caplog.messages[1]
    np.testing.assert_array_equal(first_band(shown.cube), cube_of()[0])


def test_group_of_a_stream_opens(opener: Opener, tmp_path: Path) -> None:
    sink = ZarrGroup(tmp_path / "g.zarr")
    for seed in (0, 1):
        with sink.cube(None, 20, 24, {}) as writer:
            writer.write(0, cube_of(seed=seed))
    shown = opener.open(tmp_path / "g.zarr")
    assert [cube.name for cube in shown] == ["g.zarr/00000000", "g.zarr/00000001"]
    np.testing.assert_array_equal(first_band(shown[1].cube), cube_of(seed=1)[0])


def test_frame_of_a_cube_is_shown_beside_it(opener: Opener, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "f.png")
    (shown,) = opener.open(save(tmp_path / "c.hdr", cube_of()), tmp_path / "f.png")
    assert shown.frame is not None and not shown.has_residual()  # no artifacts name a camera
    np.testing.assert_array_equal(shown.frame.picture, pixels)
    Image.fromarray(pixels[:, :20]).save(tmp_path / "g.png")
    with pytest.raises(CCNetError, match="20×20 px, expected the cube's 24×20 px"):
        opener.open(tmp_path / "c.hdr", tmp_path / "g.png")


def write(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing cube": ("c.hdr", lambda path: None, "no such file"),
    "missing frame": ("c.png", lambda path: None, "no such file"),
    "text": ("c.txt", write("words"), "unknown cube format"),
    "damaged header": ("c.hdr", write("no header"), "no ENVI header"),
    "damaged npy": ("c.npy", write("no array"), "damaged"),
    "damaged tif": ("c.tif", write("no picture"), "damaged"),
    "damaged nc": ("c.nc", write("no picture"), "damaged"),
    "empty folder": ("c.zarr", Path.mkdir, "no Zarr array"),
    "other array": ("c.npy", lambda path: np.save(path, np.zeros((4, 5))), "not a cube"),
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_is_neither_cube_nor_frame_is_refused(opener: Opener, tmp_path: Path, name: str) -> None:
    file, make, words = BAD[name]
    make(tmp_path / file)
    with pytest.raises(CCNetError, match=words) as caught:
        opener.open(tmp_path / file)
    assert "\n" not in str(caught.value) and str(tmp_path / file) in str(caught.value)


def test_frame_is_reconstructed_on_the_disk(artifacts: Any, tmp_path: Path) -> None:
    from ccnet.runtime import Reconstructor

    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    frames = [tmp_path / "frame.png", tmp_path / "frame.npy"]
    Image.fromarray(pixels).save(frames[0])
    np.save(frames[1], pixels)
    told: list[tuple[str, int, int]] = []
    opener = Opener(
        lambda: Reconstructor.open(artifacts[1], input_space="camera"),
        artifacts[1],
        "camera",
        lambda *progress: told.append(progress),
    )
    with closing(opener), Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        for frame in frames:
            (shown,) = opener.open(frame)
            np.testing.assert_array_equal(first_band(shown.cube), reconstruct(pixels)[0])
            assert shown.frame is not None and told[-1] == (frame.name, 48, 48)
        folder = opener._folder
    assert folder is not None and not folder.exists()
