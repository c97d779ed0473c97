"""A Reconstructor in words, for tables and for the metadata of cubes."""

from __future__ import annotations

from collections.abc import Mapping

from ccnet import __version__
from ccnet.contract import Manifest
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.io.camera_frame import FrameConverter

from .tiles.context_encoder import REDUCED_PIXELS
from .tiles.frame_path import FramePath


def describe(selection: Selection, path: FramePath, converter: FrameConverter) -> dict[str, str]:
    """Return the backend, files, precision, input colour space and tiles in words."""
    about = path.describe()
    return {
        "backend": about["backend"],
        "chosen": f"{selection.backend}: {selection.why}",
        **({"GPU": selection.gpu} if selection.gpu else {}),
        "graph": selection.decode.file,
        "precision": f"decode {selection.decode.precision}, encode {selection.encode.precision}",
        "input space": converter.describe(),
        **{name: words for name, words in about.items() if name != "backend"},
        "context": _describe_context(path.encode_pixels),
    }


def _describe_context(encode_pixels: int) -> str:
    blocks = min(encode_pixels, REDUCED_PIXELS)
    return f"whole frame, above {encode_pixels / 1e6:.2g} Mpx as means of at most {blocks / 1e6:.2g} M blocks"


def provenance(manifest: Manifest, about: Mapping[str, str]) -> dict[str, str]:
    """Return weights, backend, precision and version, for the metadata of a cube's file.

    Args:
        manifest: Manifest of the artifact folder.
        about: The result of ``describe``.

    Returns:
        Name of the entry → value.
    """
    return {
        "weights sha256": manifest.weights_sha256[:16],
        "backend": about["backend"],
        "precision": about["precision"],
        "version": __version__,
    }
