"""Measure how much cubes flicker under each context policy: python examples/flicker.py FRAME [ARTIFACTS] [FRAMES]

FRAME is a frame of the weights' camera (``ccnet simulate`` makes them of real cubes). A view pans over it while the
exposure swings by ±20 % and every frame has its own noise. Scene points that are in all frames are compared over time,
each cube divided by its exposure, so that nothing but the network changes them:

- flicker: standard deviation over time / (mean + 0.02), mean over points and bands;
- jump: the largest mean |difference| / (mean + 0.02) between two frames that follow each other;
- MRAE: against the same frame's cube under its own context;
- s/frame: of encode and decode together.
"""

from __future__ import annotations

import math
import sys
import time

import numpy as np

from ccnet.contract import FRAME_SCALE, CCNetError
from ccnet.metrics import MRAE_OFFSET, mrae
from ccnet.runtime import Reconstructor, read_frame
from ccnet.runtime.stream.context_policy import ContextPolicy

SIDE, STEP, NOISE = 128, 4, 0.003
POLICIES = ("every:1", "every:8", "every:1000", "scene", "smooth")


def exposure(number: int) -> float:
    return 0.8 * (1 + 0.2 * math.sin(2 * math.pi * number / 16))


def sequence(frame: np.ndarray, count: int) -> list[np.ndarray]:
    """(SIDE, SIDE, 3) float32 in [0, 1], panned to the right by STEP px a frame."""
    whole = frame / np.float32(FRAME_SCALE[frame.dtype.name])
    if whole.shape[0] < SIDE or whole.shape[1] < SIDE + STEP * (count - 1):
        raise CCNetError(f"the frame is {whole.shape}, expected at least {SIDE}×{SIDE + STEP * (count - 1)} px")
    top = (whole.shape[0] - SIDE) // 2
    rng = np.random.default_rng(0)
    frames = []
    for number in range(count):
        seen = whole[top : top + SIDE, STEP * number : STEP * number + SIDE] * exposure(number)
        frames.append(np.clip(seen + rng.normal(0, NOISE, seen.shape), 0, 1).astype(np.float32))
    return frames


def shared(cube: np.ndarray, number: int, count: int) -> np.ndarray:
    """The points that all frames see, every fourth in x and y, as exposure 1 would show them."""
    first = STEP * (count - 1 - number)
    width = SIDE - STEP * (count - 1)
    return cube[:, ::4, first : first + width : 4] / exposure(number)


def main(path: str, artifacts: str = "build/ccnet", count: str = "24") -> None:
    frames = sequence(read_frame(path), int(count))
    print(f"{'context':12}{'encoded':>8}{'flicker':>10}{'jump':>10}{'MRAE':>10}{'s/frame':>10}")
    with Reconstructor.open(artifacts, input_space="camera") as reconstruct:
        own = [reconstruct(frame) for frame in frames]
        for name in POLICIES:
            policy, started = ContextPolicy(name), time.perf_counter()
            cubes = [reconstruct(frame, policy(reconstruct, frame)) for frame in frames]
            seconds = (time.perf_counter() - started) / len(frames)
            points = np.stack([shared(cube, number, len(cubes)) for number, cube in enumerate(cubes)])
            mean = np.abs(points.mean(axis=0)) + MRAE_OFFSET
            flicker = np.mean(points.std(axis=0) / mean)
            jump = np.mean(np.abs(np.diff(points, axis=0)) / mean, axis=(1, 2, 3)).max()
            far = np.mean([mrae(truth, cube) for truth, cube in zip(own, cubes, strict=True)])
            print(f"{name:12}{policy.encoded:>8}{flicker:>10.2%}{jump:>10.2%}{far:>10.2e}{seconds:>10.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
