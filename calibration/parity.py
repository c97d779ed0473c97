"""Combine the parities of several frames."""

from __future__ import annotations

from collections.abc import Sequence

from ccnet.runtime.quality.tolerances import Parity


def worst_parity(parities: Sequence[Parity]) -> Parity:
    """Return the worst of each figure."""
    return Parity(
        mrae=max(parity.mrae for parity in parities),
        sam=max(parity.sam for parity in parities),
        psnr=min(parity.psnr for parity in parities),
        max_abs=max(parity.max_abs for parity in parities),
        mean_abs=max(parity.mean_abs for parity in parities),
    )
