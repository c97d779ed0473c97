"""``ccnet reconstruct``: the self-check of a cube, and its correction by its frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccnet.metrics.correction import FrameCorrection, corrected
from ccnet.runtime import read_cube

from .conftest import name_camera

Ccnet = Callable[..., Any]


def test_cube_is_corrected_by_its_frame_after_the_self_check(work: Path, ccnet: Ccnet, stub: Any) -> None:
    response = name_camera(work, stub, stub.gain + stub.gain[::-1] / 5)  # the stub's cubes explain no frame by it
    frame = np.random.default_rng(0).random((40, 56, 3), np.float32)
    np.save("frame.npy", frame)
    plain, better = (
        ccnet("reconstruct", "frame.npy", "--input-space", "camera", "--tile", "48", *options)
        for options in (("-o", "plain.npy"), ("-o", "better.npy", "--correct"))
    )
    assert better.code == 0 and "corrected by its frame" in better.out and "corrected" not in plain.out
    assert better.out.splitlines()[1].split(": ", 1)[1] == plain.out.splitlines()[1].split(": ", 1)[1]
    cube = read_cube(Path("plain.npy"))
    expected = corrected(cube, frame.transpose(2, 0, 1), response)
    np.testing.assert_allclose(read_cube(Path("better.npy")), expected, atol=1e-5)
    assert np.abs(expected - cube).max() > 0.01


def test_cubes_of_a_stream_are_corrected(work: Path, ccnet: Ccnet, stub: Any) -> None:
    response = name_camera(work, stub, stub.gain + stub.gain[::-1] / 5)
    pixels = np.random.default_rng(0).integers(0, 250, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save("frame.png")
    for sink, options in (("plain", []), ("better", ["--correct"])):
        result = ccnet("stream", "frame.png", "--sink", sink, "--input-space", "camera", *options)
        assert result.code == 0 and "1 delivered" in result.out
    expected = read_cube(Path("plain/frame.hdr")).copy()
    FrameCorrection(pixels, response).write(0, expected)
    np.testing.assert_allclose(read_cube(Path("better/frame.hdr")), expected, atol=1e-5)
    assert np.abs(expected - read_cube(Path("plain/frame.hdr"))).max() > 0.01
    assert "corrected = by the frame" in Path("better/frame.hdr").read_text()
    assert "corrected" not in Path("plain/frame.hdr").read_text()


def test_a_stream_of_camera_frames_without_a_known_response_is_refused(
    work: Path, ccnet: Ccnet, assert_refused: Any
) -> None:
    arguments = ("stream", "photo.png", "--sink", "cubes", "--correct", "--input-space", "camera")
    assert_refused(ccnet(*arguments), "the weights' camera, which these artifacts do not name")
    assert not Path("cubes").exists()


def test_a_stream_rejects_photographs_that_it_cannot_correct(work: Path, ccnet: Ccnet) -> None:
    result = ccnet("stream", "photo.png", "--sink", "cubes", "--correct")
    assert (
        result.code == 1 and "1 rejected (radiometry 1)" in result.out and "a photograph has a tone curve" in result.out
    )


def test_photograph_and_artifacts_without_a_camera_refuse_a_correction(
    work: Path, ccnet: Ccnet, assert_refused: Any
) -> None:
    assert_refused(ccnet("reconstruct", "photo.png", "-o", "a.npy", "--correct"), "a photograph has a tone curve")
    arguments = ("reconstruct", "photo.png", "-o", "a.npy", "--correct", "--input-space", "camera")
    assert_refused(ccnet(*arguments), "the weights' camera, which these artifacts do not name")
    assert not Path("a.npy").exists()


def test_reprojection_residual_is_printed_and_drawn(work_with_camera: Path, ccnet: Ccnet) -> None:
    result = ccnet("reconstruct", "photo.png", "-o", "photo.npy", "--reprojection", "where.png")
    assert result.code == 0 and result.err == ""
    _, verdict, drawn = result.out.splitlines()
    assert verdict.startswith("photo.npy: reprojection: mean residual 0.0%") and drawn == "where.png"
    with Image.open("where.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
    assert "thirds" in ccnet("inspect", "build/ccnet").out


def test_artifacts_without_a_camera_refuse_a_reprojection(work: Path, ccnet: Ccnet, assert_refused: Any) -> None:
    assert "reprojection" not in ccnet("reconstruct", "photo.png", "-o", "photo.npy").out
    before = sorted(work.rglob("*"))
    arguments = ("reconstruct", "photo.png", "-o", "photo.hdr", "--reprojection", "where.png")
    assert_refused(ccnet(*arguments), "do not say which camera")
    assert sorted(work.rglob("*")) == before
