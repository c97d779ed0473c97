"""Frames of a stream are converted as their source and the options say, and their cubes tell how."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import CCNetError, Manifest
from ccnet.runtime.io.cameras.adjustment import Adjustment
from ccnet.runtime.io.cameras.preparation import FramePreparation
from ccnet.runtime.io.cameras.raw_file import DevelopedFrame, RawColour
from ccnet.runtime.io.sensor import Radiometry
from ccnet.runtime.stream.preparation import StreamPreparation

MANIFEST = Manifest(config={}, weights_sha256="5a" * 32, context_size=3, input="float32", tools={}, halo=16)
PICTURE = np.full((16, 16, 3), 128, np.uint8)
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MATRIX = ((0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.0, 0.1, 0.9))


def developed(level: float, radiometry: Radiometry) -> DevelopedFrame:
    frame: DevelopedFrame = np.full((16, 16, 3), level * 65535, np.uint16).view(DevelopedFrame)
    colour = RawColour(white_balance=(2, 1, 1.5), radiometry=radiometry, source="a test", file="first.dng")
    frame.colour = colour
    return frame


def preparation(adjustment: Adjustment = Adjustment(), radiometry: Radiometry | None = None) -> StreamPreparation:  # noqa: B008
    prepare = FramePreparation(MANIFEST, None, radiometry, adjustment, keep_gains=True)
    return StreamPreparation(prepare, {"source": "shots"})


def test_metadata_are_those_of_the_latest_frame() -> None:
    prepare = preparation()
    assert prepare.metadata == {"source": "shots", "space": "srgb"}
    prepare(developed(0.5, Radiometry(camera="X", matrix=MATRIX)))
    assert prepare.metadata["space"] == "camera" and prepare.metadata["radiometry camera"] == "X"
    assert prepare.metadata["white balance"] == "2.0000 1.0000 1.5000, as shot in first.dng"
    prepare(PICTURE)
    assert prepare.metadata == {"source": "shots", "space": "srgb"}


def test_a_program_reads_how_the_latest_frame_was_converted_from_its_preparation() -> None:
    prepare = FramePreparation(MANIFEST, None, None, Adjustment(exposure=1.0))
    prepare(developed(0.25, Radiometry(camera="X", matrix=MATRIX)))
    assert prepare.metadata()["radiometry camera"] == "X" and "first.dng" in prepare.metadata()["white balance"]
    assert prepare.describe().startswith("X") and prepare.describe().endswith("gains 2, 2, 2")
    prepare(PICTURE)
    assert "radiometry camera" not in prepare.metadata() and prepare.describe().startswith("srgb frame")


def test_gains_of_the_first_frame_are_kept_for_its_camera() -> None:
    prepare = preparation(Adjustment(exposure="auto"))
    camera, other = Radiometry(camera="X"), Radiometry(camera="Y")
    bright, dark, others = (prepare(developed(*each)) for each in ((0.5, camera), (0.25, camera), (0.1, other)))
    np.testing.assert_allclose(bright[0, 0], 0.65, atol=1e-4)
    np.testing.assert_allclose(dark[0, 0], 0.325, atol=1e-4)
    np.testing.assert_allclose(others[0, 0], 0.65, atol=1e-4)


def test_radiometry_of_the_user_goes_before_that_of_the_file() -> None:
    frame = developed(0.5, Radiometry(camera="X", matrix=MATRIX))
    frame[..., 0] = 0
    own, users = preparation(), preparation(radiometry=Radiometry(camera="mine", matrix=IDENTITY))
    np.testing.assert_allclose(own(frame)[0, 0], np.array(MATRIX) @ (0, 0.5, 0.5), atol=1e-4)
    np.testing.assert_allclose(users(frame)[0, 0], (0, 0.5, 0.5), atol=1e-4)
    assert users.metadata["radiometry camera"] == "mine" and "first.dng" in users.metadata["white balance"]


@pytest.mark.parametrize("radiometry", [Radiometry(bayer="RGGB"), Radiometry(black=(64, 64, 64))])
def test_radiometry_of_samples_is_refused_for_raw_files(radiometry: Radiometry) -> None:
    with pytest.raises(CCNetError, match="raw files come as R, G and B without a black level"):
        preparation(radiometry=radiometry)(developed(0.5, Radiometry()))


def test_missing_matrix_is_warned_of_once_for_each_camera(caplog: pytest.LogCaptureFixture) -> None:
    prepare = preparation()
    for camera in ("X", "Y", "X"):
        prepare(developed(0.5, Radiometry(camera=camera)))
    assert [line.partition(":")[0] for line in caplog.messages] == ["X, no colour matrix", "Y, no colour matrix"]
    assert "'ccnet camera fit'" in caplog.messages[0]
