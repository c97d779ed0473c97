"""A folder of pictures, as a drone brings home, to one index a pixel: python examples/survey.py FOLDER OUT [ARTIFACTS]

The index is (700 - 670) / (700 + 670) nm, at the foot of the red edge. OUT gets a .npy (H, W) for each picture and
survey.csv with its mean and the share of pixels above 0.1. No cube is ever held; a picture that cannot be read is
named and left out.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from ccnet.runtime import CCNetError, Projection, Reconstructor, read_frame
from ccnet.runtime.io.frames import frame_paths

INDEX = Projection.differences({"red edge": (700, 670)})


def main(folder: str, out: str, artifacts: str = "build/ccnet") -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    with (
        Reconstructor.open(artifacts, input_space="srgb") as reconstruct,
        (Path(out) / "survey.csv").open("w", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(["picture", "mean", "share above 0.1"])
        for path in frame_paths([Path(folder)]):
            try:
                (index,) = reconstruct.project(read_frame(path), INDEX)
            except CCNetError as error:
                print(error, file=sys.stderr)
                continue
            np.save(Path(out) / f"{path.stem}.npy", index)
            table.writerow([path.name, f"{np.nanmean(index):.4f}", f"{np.mean(index > 0.1):.4f}"])


if __name__ == "__main__":
    main(*sys.argv[1:])
