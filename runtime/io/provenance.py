"""What a cube's file says of how the cube was made."""

from __future__ import annotations

from ccnet import __version__
from ccnet.runtime.reconstructor import Reconstructor


def provenance(reconstructor: Reconstructor) -> dict[str, str]:
    """Weights, backend, precision and version, as metadata for ``open_cube``."""
    about = reconstructor.describe()
    return {
        "weights sha256": reconstructor.manifest.weights_sha256[:16],
        "backend": about["backend"],
        "precision": about["precision"],
        "version": __version__,
    }
