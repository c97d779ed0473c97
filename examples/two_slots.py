"""Capture, reconstruct and consume at the same time: python examples/two_slots.py VIDEO [ARTIFACTS]

While one frame is in the network, this thread reads the next and works on the cube before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cv2
import numpy as np

from ccnet.runtime import AsyncReconstructor, Reconstructor


def frames(video: str) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(video)
    while (got := capture.read())[0]:
        yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)


def consume(number: int, cube: np.ndarray) -> None:
    print(f"frame {number}: {cube.shape}, mean {cube.mean():.4f}")


def main(video: str, artifacts: str = "build/ccnet") -> None:
    with Reconstructor.open(artifacts, input_space="srgb") as reconstruct, AsyncReconstructor(reconstruct) as slots:
        pending = None
        for number, frame in enumerate(frames(video)):
            submitted = slots.submit(frame)
            if pending:
                consume(number - 1, pending.result())
            pending = submitted
        if pending:
            consume(number, pending.result())


if __name__ == "__main__":
    main(*sys.argv[1:])
