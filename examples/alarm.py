"""An alarm on a ratio of bands: python examples/alarm.py VIDEO [ARTIFACTS] [LIMIT]

Says which frames have more than LIMIT (1 %) of pixels whose 650 nm band is over twice the 550 nm band: something red
is in view. The context is kept until the scene changes; one number a pixel is computed, not 31.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from ccnet.runtime import Projection, Reconstructor
from ccnet.runtime.stream.context_policy import ContextPolicy

RED = Projection.ratios({"red": (650, 550)})


def main(video: str, artifacts: str = "build/ccnet", limit: str = "0.01") -> None:
    capture, context, ratio = cv2.VideoCapture(video), ContextPolicy("scene"), None
    with Reconstructor.open(artifacts, input_space="srgb") as reconstruct:
        number = 0
        while (got := capture.read())[0]:
            # Converted once, for the context policy, encode and project
            frame = reconstruct.camera_frame(cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB))
            ratio = reconstruct.project(frame, RED, context(reconstruct, frame), out=ratio)
            share = float(np.mean(ratio > 2))
            if share > float(limit):
                print(f"frame {number}: {share:.1%} of it is red")
            number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
