"""What the model promises to everything that runs it; numpy only, so that a camera needs no torch."""

from ccnet.contract.errors import CCNetError, damaged, naming
from ccnet.contract.files import SHIPPED, compiled, make_folder, partial_of, plain_json, sha256, write_atomic
from ccnet.contract.manifest import (
    GRAPHS,
    MANIFEST_KEY,
    MANIFEST_NAME,
    NATIVE,
    NATIVE_DOMAIN,
    PRECISION_KEY,
    Artifact,
    Manifest,
)
from ccnet.contract.spec import (
    BANDS_NM,
    CONTEXT,
    CUBE,
    FRAME_SCALE,
    HALO,
    RGB,
    SIZE_MULTIPLE,
    camera_response,
    padded,
    reflect_index,
)

__all__ = [
    "BANDS_NM",
    "CONTEXT",
    "CUBE",
    "FRAME_SCALE",
    "GRAPHS",
    "HALO",
    "MANIFEST_KEY",
    "MANIFEST_NAME",
    "NATIVE",
    "NATIVE_DOMAIN",
    "PRECISION_KEY",
    "RGB",
    "SHIPPED",
    "SIZE_MULTIPLE",
    "Artifact",
    "CCNetError",
    "Manifest",
    "camera_response",
    "compiled",
    "damaged",
    "make_folder",
    "naming",
    "padded",
    "partial_of",
    "plain_json",
    "reflect_index",
    "sha256",
    "write_atomic",
]
