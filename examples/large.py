"""Measure time and memory of a large frame: python examples/large.py [--megapixels 100] [--width PX] [--strips 2]

A synthetic frame, square unless --width is given, is reconstructed strip by strip, all of it or the first strips, and
compared with one of 1 Mpx. Memory is the process's own peak, which later strips do not raise: they reuse the buffers
of the first.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np

from ccnet.runtime import Reconstructor


def synthetic(megapixels: float, width: int | None) -> np.ndarray:
    """(H, W, 3) uint8: waves of several lengths, written row by row."""
    width = width or math.isqrt(int(megapixels * 1e6))
    frame = np.empty((int(megapixels * 1e6) // width, width, 3), np.uint8)
    x = np.arange(width)[:, None] / (37, 41, 53)
    for y, row in enumerate(frame):
        row[...] = 128 + 60 * np.sin(x + y / 29) + 60 * np.cos(x / 7 - y / 97)
    return frame


def seconds_per_megapixel(reconstruct: Reconstructor, frame: np.ndarray, strips: int | None) -> float:
    context = reconstruct.encode(frame)
    started, pixels = time.perf_counter(), 0
    for _, strip in itertools.islice(reconstruct.strips(frame, context), strips):
        pixels += strip.shape[1] * strip.shape[2]
    return (time.perf_counter() - started) / (pixels / 1e6)


def peak_memory() -> float:
    """GB of this process alone: getrusage also counts the program that started it, until this one was loaded."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6  # in kB there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--width", type=int)
    parser.add_argument("--strips", type=int)
    parser.add_argument("--artifacts", default="build/ccnet")
    options = parser.parse_args()
    with Reconstructor.open(options.artifacts, input_space="camera") as reconstruct:
        for megapixels in (1, options.megapixels):
            cost = seconds_per_megapixel(reconstruct, synthetic(megapixels, options.width), options.strips)
            print(f"{megapixels:g} Mpx: {cost:.3g} s/Mpx, peak {peak_memory():.2f} GB so far", flush=True)


if __name__ == "__main__":
    main()
