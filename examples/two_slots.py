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
    with Reconstructor.open(artifacts) as reconstruct, AsyncReconstructor(reconstruct) as slots:
        under_way = None
        for number, frame in enumerate(frames(video)):
            submitted = slots.submit(frame)
            if under_way:
                consume(number - 1, under_way.result())
            under_way = submitted
        if under_way:
            consume(number, under_way.result())


if __name__ == "__main__":
    main(*sys.argv[1:])
