"""The interface between the network and everything that runs it; numpy only, so that a camera needs no torch."""

from ccnet.contract.artifact_folder import ArtifactFolder
from ccnet.contract.errors import CCNetError, decode_errors_as, prefix_errors
from ccnet.contract.files import (
    SHIPPED_WEIGHTS,
    kernel_library_path,
    make_folder,
    sha256,
    strict_json,
    write_atomic,
)
from ccnet.contract.machine import available_cores, available_memory, cpu_name
from ccnet.contract.manifest import (
    MANIFEST_KEY,
    MANIFEST_NAME,
    NATIVE_DOMAIN,
    NATIVE_FORMAT,
    ONNX_FORMATS,
    PRECISION_KEY,
    Artifact,
    Manifest,
)
from ccnet.contract.spec import (
    BANDS_NM,
    CONTEXT,
    CUBE,
    CUBE_SUM,
    FRAME_SCALE,
    HALO,
    RGB,
    SIZE_MULTIPLE,
    camera_response,
    padded_size,
    reflect_index,
)

__all__ = [
    "BANDS_NM",
    "CONTEXT",
    "CUBE",
    "CUBE_SUM",
    "FRAME_SCALE",
    "HALO",
    "MANIFEST_KEY",
    "MANIFEST_NAME",
    "NATIVE_DOMAIN",
    "NATIVE_FORMAT",
    "ONNX_FORMATS",
    "PRECISION_KEY",
    "RGB",
    "SHIPPED_WEIGHTS",
    "SIZE_MULTIPLE",
    "Artifact",
    "ArtifactFolder",
    "CCNetError",
    "Manifest",
    "available_cores",
    "available_memory",
    "camera_response",
    "cpu_name",
    "decode_errors_as",
    "kernel_library_path",
    "make_folder",
    "padded_size",
    "prefix_errors",
    "reflect_index",
    "sha256",
    "strict_json",
    "write_atomic",
]
