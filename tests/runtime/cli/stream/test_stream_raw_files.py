"""``ccnet stream`` of raw files: the cubes of ``ccnet reconstruct``, and a line on each that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor, read_cube
from ccnet.runtime.io.cameras.raw_file import read_raw
from ccnet.runtime.stream.sources import pictures
from tests.runtime.io.cameras.dng_file import shot_with, write_dng

pytest.importorskip("rawpy", reason="rawpy is not installed: the extra raw")

Ccnet = Callable[..., Any]
LEFT, RIGHT = (0.2, 0.4, 0.24), (0.1, 0.3, 0.12)


@pytest.fixture
def shots(work: Path) -> Path:
    """A folder with three raw files, of which the middle one is cut in its pixels."""
    folder = work / "shots"
    folder.mkdir()
    for name in "abc":
        write_dng(folder / f"{name}.dng", LEFT, RIGHT)
    torn = folder / "b.dng"
    torn.write_bytes(torn.read_bytes()[:2000])
    return folder


def facts(header: Path) -> set[str]:
    """Return the lines of metadata that both commands write."""
    ours = ("ccnet radiometry", "ccnet white balance", "ccnet space", "ccnet gains", "ccnet colour")
    return {line for line in header.read_text().splitlines() if line.startswith(ours)}


@pytest.mark.parametrize("options", [(), ("--exposure", "1"), ("--radiometry", "nikon d700")])
def test_cubes_and_metadata_are_those_of_reconstruct(shots: Path, ccnet: Ccnet, options: tuple[str, ...]) -> None:
    streamed = ccnet("stream", "shots", "--sink", "streamed", *options)
    assert streamed.code == 0 and streamed.err == ""
    assert "3 frames arrived: 2 delivered, 0 dropped by policy, 1 rejected (source 1)" in streamed.out
    (reason,) = [line for line in streamed.out.splitlines() if "b.dng" in line]
    assert "expected a whole raw file" in reason
    assert ccnet("reconstruct", "shots/a.dng", "shots/c.dng", "-o", "single", *options).code == 0
    for name in ("a", "c"):
        np.testing.assert_array_equal(read_cube(Path(f"streamed/{name}.hdr")), read_cube(Path(f"single/{name}.hdr")))
    assert facts(Path("streamed/a.hdr")) == facts(Path("single/a.hdr"))
    assert any(
        "ccnet white balance = 2.0000 1.0000 1.6667, as shot in a.dng" in line for line in facts(Path("streamed/a.hdr"))
    )


def test_other_white_balance_is_told_and_the_first_kept(shots: Path, ccnet: Ccnet, caplog: Any) -> None:
    write_dng(shots / "b.dng", LEFT, RIGHT, changes=shot_with((0.7, 1, 0.4)))
    assert ccnet("stream", "shots", "--sink", "cubes").code == 0
    np.testing.assert_array_equal(read_cube(Path("cubes/b.hdr")), read_cube(Path("cubes/a.hdr")))
    assert "as shot in a.dng" in Path("cubes/b.hdr").read_text()
    assert [line.partition(",")[0] for line in caplog.messages] == ["b.dng: its white balance is not that of a.dng"]


def test_files_of_several_sizes_and_kinds_in_their_order(shots: Path, ccnet: Ccnet) -> None:
    Image.open("photo.png").save("last.png")
    result = ccnet("stream", "shots/c.dng", "shots/a.dng", "last.png", "--sink", "cubes")
    assert result.code == 0 and "3 delivered" in result.out
    assert read_cube(Path("cubes/c.hdr")).shape == (31, 48, 64)
    assert read_cube(Path("cubes/last.hdr")).shape == (31, 40, 70)
    assert "ccnet frame id = 0" in Path("cubes/c.hdr").read_text()
    last = Path("cubes/last.hdr").read_text()
    assert "ccnet space = srgb" in last and "radiometry" not in last and "white balance" not in last


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            ("shots/a.dng", "shots"),
            "shots: is no picture and no raw file, expected one source, or files of frames only",
        ),
        (("shots/a.dng", "none.dng"), "none.dng: is no picture and no raw file"),
        (("shots/a.dng", "shots/c.dng", "--size", "4x4"), "--size is for raw video on stdin"),
    ],
)
def test_list_that_is_no_list_of_frames_is_refused(
    shots: Path, ccnet: Ccnet, source: tuple[str, ...], words: str, assert_refused: Callable[[Any, str], None]
) -> None:
    assert_refused(ccnet("stream", *source, "--sink", "cubes"), words)


def test_missing_rawpy_is_one_line(shots: Path, ccnet: Ccnet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: str, extra: str) -> None:
        raise CCNetError(f"{module} is not installed: the extra {extra}")

    monkeypatch.setattr(pictures, "optional_module", fail)
    result = ccnet("stream", "shots", "--sink", "cubes")
    assert result.code == 2 and result.err == "ccnet: shots/a.dng: rawpy is not installed: the extra raw\n"
    assert not Path("cubes").exists()


def test_embedded_reconstructor_uses_the_colour_of_the_file(shots: Path, ccnet: Ccnet) -> None:
    assert ccnet("reconstruct", "shots/a.dng", "-o", "a.npy").code == 0
    with Reconstructor.open("build/ccnet", input_space="srgb") as reconstruct:
        np.testing.assert_array_equal(reconstruct(read_raw(shots / "a.dng")), read_cube(Path("a.npy")))
