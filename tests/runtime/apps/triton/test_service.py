"""The model's work without a server: requests, sequences, and the errors of wrong ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ccnet.runtime import Reconstructor
from ccnet.runtime.apps.triton import service
from ccnet.runtime.apps.triton.python_model import TritonPythonModel
from ccnet.runtime.apps.triton.service import FrameService, Request, ServiceSettings
from tests.runtime.conftest import Array, pixels, refusal


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Reconstructor]:
    with Reconstructor.open(folder, input_space="srgb") as reconstruct:
        yield reconstruct


@pytest.fixture
def serve(folder: Path) -> Iterator[FrameService]:
    with FrameService(folder, ServiceSettings(context="every:9", max_megapixels=0.01)) as opened:
        yield opened


def encoded(frame: Array, kind: str) -> Array:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind)
    return np.frombuffer(file.getvalue(), np.uint8)


def test_picture_is_decoded_like_a_file(serve: FrameService, local: Reconstructor) -> None:
    frame = pixels(32, 48)
    assert np.array_equal(serve(Request(image=encoded(frame, "PNG"))), local(frame))


def test_least_recently_used_sequence_is_forgotten_first(
    serve: FrameService, local: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_SEQUENCES", 2)
    first, second = pixels(32, 48), pixels(32, 48, seed=1)
    kept = local(second, local.encode(first))
    for name in ("a", "b", "a", "c"):  # b was used before a
        serve(Request(frame=first, sequence=name))
    assert np.array_equal(serve(Request(frame=second, sequence="a")), kept)
    assert np.array_equal(serve(Request(frame=second, sequence="b")), local(second))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(), ["both or none of frame and image"]),
        (Request(frame=np.zeros((99, 999, 3), np.uint8)), ["999×99 px", "0.01 Mpx"]),
        (Request(image=np.arange(9, dtype=np.uint8)), ["image: not one of PNG"]),
        (Request(image=encoded(pixels(99, 999), "PNG")), ["image: 999×99 px is too large"]),
        (Request(image=encoded(pixels(32, 48), "JPEG")[:-200]), ["image: damaged"]),
        (Request(frame=pixels(16, 16), denominator=np.zeros((1, 31), np.float32)), ["denominator without"]),
        (Request(frame=pixels(16, 16), projection=np.zeros((257, 31), np.float32)), ["257 rows", "at most 256"]),
    ],
)
def test_wrong_request_is_refused_in_one_line(serve: FrameService, request_: Request, words: list[str]) -> None:
    refusal(lambda: serve(request_), *words)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"contexts": "scene"}, ["'contexts' is unknown"]),
        ({"threads": "two"}, ["threads is 'two'", "a number"]),
    ],
)
def test_wrong_parameter_is_named(texts: dict[str, str], words: list[str]) -> None:
    refusal(lambda: ServiceSettings.parse(texts), *words)


def test_wrong_context_policy_is_an_error_at_the_start(folder: Path) -> None:
    refusal(lambda: FrameService(folder, ServiceSettings(context="never")), "'never'", "every:N")


def test_request_that_was_cancelled_is_not_computed() -> None:
    class Server:
        class TritonError(Exception):
            CANCELLED = 7

        @staticmethod
        def InferenceResponse(error: Exception) -> Exception:  # noqa: N802
            return error

    class Cancelled:
        @staticmethod
        def is_cancelled() -> bool:
            return True

    model: Any = TritonPythonModel()
    model._server = Server  # there is no service: computing would fail
    assert [error.args for error in model.execute([Cancelled()])] == [("cancelled", 7)]
