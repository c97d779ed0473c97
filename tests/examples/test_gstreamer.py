"""The GStreamer element in a real pipeline, where Debian's GStreamer for Python is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401 - before GStreamer: after torch and GStreamer's libunwind its exceptions end the process
import pytest

from ccnet.runtime import Reconstructor
from ccnet.runtime.io.srgb import InputSpace

gi = pytest.importorskip("gi", reason="needs Debian's python3-gst-1.0 and gstreamer1.0-plugins-base")
try:
    gi.require_version("Gst", "1.0")
    from gi.repository import Gst
except (ValueError, ImportError):
    pytest.skip("needs Debian's python3-gst-1.0 and gstreamer1.0-plugins-base", allow_module_level=True)

ELEMENT = Path(__file__).resolve().parents[2] / "examples/gstreamer/python/ccnethsi.py"


@pytest.fixture(scope="module", autouse=True)
def _element() -> None:
    spec = importlib.util.spec_from_file_location("ccnethsi", ELEMENT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["ccnethsi"] = module
    spec.loader.exec_module(module)
    assert Gst.Element.register(None, *module.__gstelementfactory__)


def play(source: str, *rest: str) -> list[Any]:
    """Return the samples that reach the end of the pipeline, or raise the first error on its bus."""
    pipeline = Gst.parse_launch(" ! ".join([source, *rest, "appsink name=end sync=false"]))
    end, samples = pipeline.get_by_name("end"), []
    try:
        pipeline.set_state(Gst.State.PLAYING)
        while sample := end.emit("pull-sample"):
            samples.append(sample)
        message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
        if message:
            raise RuntimeError(message.parse_error()[0].message)
    finally:
        pipeline.set_state(Gst.State.NULL)
    return samples


def values(sample: Any, dtype: str) -> Any:
    buffer = sample.get_buffer()
    return np.frombuffer(buffer.extract_dup(0, buffer.get_size()), dtype)


# A row of 50 px has 150 bytes, which GStreamer pads to 152
SOURCE = ("videotestsrc num-buffers=3 pattern=ball", "video/x-raw,format=RGB,width=50,height=36,framerate=25/1")


@pytest.mark.parametrize("space", ["srgb", "camera"])
def test_frames_become_cubes(artifacts: Any, space: InputSpace) -> None:
    frames = [values(sample, "u1").reshape(36, 152)[:, :150].reshape(36, 50, 3) for sample in play(*SOURCE)]
    samples = play(*SOURCE, f"ccnethsi artifacts={artifacts[1]} space={space}")
    assert len(frames) == len(samples) == 3
    with Reconstructor.open(artifacts[1], input_space=space) as reconstruct:
        for number, (frame, sample) in enumerate(zip(frames, samples, strict=True)):
            expected = reconstruct(frame)
            np.testing.assert_array_equal(values(sample, "<f4").reshape(31, 36, 50), expected)
            assert sample.get_buffer().pts == number * Gst.SECOND // 25
    caps = samples[0].get_caps().get_structure(0)
    assert caps.get_name() == "application/x-ccnet-cube"
    assert [caps.get_value(name) for name in ("bands", "width", "height")] == [31, 50, 36]


def test_video_downstream_gets_a_preview(artifacts: Any) -> None:
    samples = play(*SOURCE, f"ccnethsi artifacts={artifacts[1]}", "videoconvert", "video/x-raw,format=RGB")
    assert [values(sample, "u1").size for sample in samples] == [36 * 152] * 3


def test_folder_without_artifacts_is_a_pipeline_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no manifest\.json"):
        play(*SOURCE, f"ccnethsi artifacts={tmp_path}")
