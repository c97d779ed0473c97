"""A picture to its cube by a server of 'ccnet serve run': python examples/triton_client.py PICTURE CUBE.npy [URL]

The picture goes as it is, a PNG or JPEG, and the server decodes it. Pixels of a camera go as the input "frame",
(H, W, 3) uint8, instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton


def main(picture: str, out: str, url: str = "localhost:8001") -> None:
    data = np.frombuffer(Path(picture).read_bytes(), np.uint8)
    image = triton.InferInput("image", data.shape, "UINT8")
    image.set_data_from_numpy(data)
    with triton.InferenceServerClient(url) as client:
        cube = client.infer("ccnet", [image]).as_numpy("cube")  # (31, H, W) float32, 400 to 700 nm
    np.save(out, cube)
    print(f"{out}: {cube.shape}, mean {cube.mean():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
