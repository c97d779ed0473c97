"""The policies that choose the context of a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.context_policy import SCENE_CHANGE, SMOOTHING, ContextPolicy, change, signature


class Counter:
    """An encoder whose n-th context is n."""

    calls = -1

    def encode(self, frame: Any) -> Any:
        self.calls += 1
        return np.full((1, 3), self.calls, np.float32)


class Broken:
    """An encoder that always fails."""

    def encode(self, frame: Any) -> Any:
        raise CCNetError("NaN")


def contexts(text: str, frames: list[Any]) -> list[float]:
    policy, encoder = ContextPolicy(text), Counter()
    chosen = [policy(encoder, frame) for frame in frames]
    found = [float(context[0, 0]) for context in chosen if context is not None]
    assert policy.encoded == encoder.calls + 1
    return found


def frame(level: int, size: tuple[int, int] = (90, 130)) -> Any:
    return np.full((*size, 3), level, np.uint8)


def test_every_n_encodes_each_nth_frame() -> None:
    assert contexts("every:3", [frame(9)] * 7) == [0, 0, 0, 1, 1, 1, 2]


def test_every_frame_has_its_own_context_without_a_pass_for_it() -> None:
    policy, encoder = ContextPolicy("every:1"), Counter()
    assert [policy(encoder, frame(9)) for _ in range(4)] == [None] * 4
    assert (policy.encoded, encoder.calls) == (4, -1)


def test_scene_compares_with_the_frame_that_was_encoded() -> None:
    slow = [frame(level) for level in (100, 105, 110, 115, 120, 125, 130)]  # 5 % and less a step
    assert contexts("scene", slow) == [0, 0, 0, 1, 1, 1, 2]
    assert contexts("scene", [frame(100), frame(200), frame(200)]) == [0, 1, 1]


def test_smooth_is_a_running_mean_that_a_cut_ends() -> None:
    first, second = SMOOTHING * 1, SMOOTHING * 1 + SMOOTHING * (2 - SMOOTHING * 1)
    found = contexts("smooth", [frame(100)] * 3 + [frame(200)] * 2)
    assert found == pytest.approx([0, first, second, 3, 3 + SMOOTHING])


@pytest.mark.parametrize("text", ["every:5", "scene", "smooth"])
def test_frame_of_another_size_is_encoded_again(text: str) -> None:
    assert contexts(text, [frame(9), frame(9, (91, 130)), frame(9, (90, 130))]) == [0, 1, 2]


@pytest.mark.parametrize("text", ["scene", "smooth"])
def test_frame_after_a_failed_encode_is_encoded(text: str) -> None:
    policy, encoder = ContextPolicy(text), Counter()
    policy(encoder, frame(100))
    with pytest.raises(CCNetError, match="NaN"):
        policy(Broken(), frame(200))
    context = policy(encoder, frame(200))
    assert context is not None and float(context[0, 0]) == 1  # not 0, nor a mean of both
    assert policy.encoded == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (64, 64), (70, 33), (3000, 2000)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_signature_is_in_the_frames_scale(size: tuple[int, int], dtype: str) -> None:
    high = 1 if dtype == "float32" else np.iinfo(dtype).max
    np.testing.assert_allclose(signature(np.full((*size, 3), high, dtype)), np.ones((9, 3)))


def test_noise_and_a_pan_are_no_scene_change_but_darkening_is() -> None:
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(30, 200, (30, 44, 3)), np.ones((16, 16, 1)))
    noisy = np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255)
    views = [view.astype(np.uint8) for view in (scene[:, :-32], noisy[:, :-32], scene[:, 32:], scene[:, :-32] * 0.8)]
    before, noise, pan, darker = map(signature, views)
    assert change(before, noise) < SCENE_CHANGE / 5
    assert change(before, pan) < SCENE_CHANGE / 2
    assert change(before, darker) > SCENE_CHANGE


@pytest.mark.parametrize("text", ["", "every", "every:0", "every:-1", "every:1.5", "every:9999999999", "Scene"])
def test_unknown_policies_are_refused(text: str) -> None:
    with pytest.raises(CCNetError, match="expected every:N"):
        ContextPolicy(text)
