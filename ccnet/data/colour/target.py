"""The camera that weights or an artifact folder are for: what a colour matrix leads to."""

from __future__ import annotations

import json
from pathlib import Path

from ccnet.contract import ArtifactFolder, CCNetError, camera_response, decode_errors_as, prefix_errors
from ccnet.data.camera import Camera

_MAX_HEADER_BYTES = 1 << 24  # of a safetensors file; those of CCNet have about 20,000


def read_target(path: Path) -> Camera:
    """Return the camera that weights are for.

    Args:
        path: Weights (.safetensors), of which the header alone is read, or an artifact folder.

    Returns:
        Its name and response.

    Raises:
        CCNetError: The file cannot be read, or does not name a single camera.
    """
    with prefix_errors(path):
        entry = ArtifactFolder.open(path).manifest.camera if path.is_dir() else _camera_of_weights(path)
        if entry is None:
            raise CCNetError("names no camera, expected weights of a single one: a matrix would lead nowhere")
        return Camera(name=entry["name"], response=camera_response(entry))


def _camera_of_weights(path: Path) -> dict[str, str] | None:
    """Return the camera's entry in the header, which is JSON after its length in 8 bytes."""
    with decode_errors_as(path, "a complete safetensors file"), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"the header claims {length} bytes")
        notes = json.loads(file.read(length)).get("__metadata__", {})
        return json.loads(notes["camera"]) if "camera" in notes else None
