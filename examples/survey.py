"""A folder of pictures, as a drone brings home, to one index a pixel: python examples/survey.py FOLDER OUT [ARTIFACTS]

The index is (700 - 670) / (700 + 670) nm, at the foot of the red edge. OUT gets a .npy (H, W) for each picture and
survey.csv with its mean and the share of pixels above 0.1. No cube is ever held; a picture that cannot be read is
named and left out. Run it again to go on: a picture whose .npy is there already is left as it is.

'ccnet survey FOLDER --out OUT --index "red edge=700,670"' does this for an archive, also on a cluster.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from ccnet.runtime import CCNetError, Projection, Reconstructor, read_frame
from ccnet.runtime.io.frames import frame_paths, result_names

INDEX = Projection.differences({"red edge": (700, 670)})


def main(folder: str, out: str, artifacts: str = "build/ccnet") -> None:
    paths, failed, kept = frame_paths([Path(folder)]), 0, 0
    Path(out).mkdir(parents=True, exist_ok=True)
    with (
        Reconstructor.open(artifacts, input_space="srgb") as reconstruct,
        (Path(out) / "survey.csv").open("a", newline="") as file,
    ):
        table = csv.writer(file)
        if not file.tell():
            table.writerow(["picture", "mean", "share above 0.1"])
        for path, name in zip(paths, result_names(paths), strict=True):
            target = Path(out) / f"{name}.npy"
            if target.exists():
                kept += 1
                continue
            try:
                (index,) = reconstruct.project(read_frame(path), INDEX)
            except CCNetError as error:
                print(error, file=sys.stderr)
                failed += 1
                continue
            table.writerow([path.name, f"{np.nanmean(index):.4f}", f"{np.mean(index > 0.1):.4f}"])
            file.flush()
            partial = target.with_name(f".{target.name}")  # so that .npy of a killed survey are whole
            np.save(partial, index)
            partial.rename(target)
    print(f"{len(paths)} pictures: {len(paths) - failed - kept} done, {kept} there already, {failed} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
