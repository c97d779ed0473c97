"""The configuration of CCNet; the paper's ablations (Tables II-V) are values of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ccnet.contract import BANDS_NM, SIZE_MULTIPLE, CCNetError

InterSpectral = Literal["ccnet", "mha"]
Continuity = Literal["nescm", "none", "convlstm", "convgru"]
Fusion = Literal["paf", "add", "concat", "cross"]
Base = Literal["none", "mlp"]


BASE_WIDTH = 128
"""Features of each hidden layer of the base, unless the configuration says otherwise."""

_UNUSED = {"base": "none", "base_width": BASE_WIDTH, "normalise": False}
"""Fields that version 0.1.0 had not, and their defaults."""


@dataclass(frozen=True, kw_only=True)
class CCNetConfig:
    """Sizes and parts of the network; the defaults are the paper's (section IV-B).

    ``ccnet.model.ablations`` builds the parts that are not the paper's own.

    Attributes:
        width: C_in, feature bands at full resolution and steps of NeSCM's recurrence.
        units: m, serial Spectrum Reconstruction Units.
        groups: k, groups of adjacent bands that GrSCM correlates and SIA pools.
        patch: r, PAF's patch side in px at full resolution; it halves with every downsampling (Table V).
        expansion: hidden width of the feed-forward network over its input width.
        inter_spectral: ``ccnet`` (GrSCM + NeSCM + PAF) or ``mha`` (MST++'s attention alone, Table II).
        continuity: the global model beside GrSCM (Table III); ``none`` is GrSCM alone.
        fusion: how its features join GrSCM's (Table IV).
        base: what the network's output is added to: nothing, as in the paper, or a per-pixel MLP's cube
            (``ccnet.model.base``).
        base_width: features of each hidden layer of that MLP.
        normalise: bring every frame to the same brightness, and its cube back (``ccnet.model.brightness``).

    Raises:
        CCNetError: a value that no network can have, or a combination that means nothing.
    """

    width: int = 32
    units: int = 3
    groups: int = 4
    patch: int = 16
    expansion: int = 4
    inter_spectral: InterSpectral = "ccnet"
    continuity: Continuity = "nescm"
    fusion: Fusion = "paf"
    base: Base = "none"
    base_width: int = BASE_WIDTH
    normalise: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "units", "groups", "patch", "expansion", "base_width"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise CCNetError(f"config {name} is {value!r}, expected a positive integer")
        if type(self.normalise) is not bool:
            raise CCNetError(f"config normalise is {self.normalise!r}, expected true or false")
        if self.width < len(BANDS_NM):
            raise CCNetError(f"config width is {self.width}, expected at least the cube's {len(BANDS_NM)} bands")
        if self.width % self.groups:
            raise CCNetError(f"config width {self.width} does not split into {self.groups} groups; take a divisor")
        if self.patch % 4:
            raise CCNetError(f"config patch is {self.patch}, expected a multiple of 4: it halves twice")
        all_choices = {"inter_spectral": InterSpectral, "continuity": Continuity, "fusion": Fusion, "base": Base}
        for name, choices in all_choices.items():
            if getattr(self, name) not in get_args(choices):
                raise CCNetError(f"config {name} is {getattr(self, name)!r}, expected one of {get_args(choices)}")
        if self.inter_spectral == "mha" and (self.continuity, self.fusion) != ("nescm", "paf"):
            raise CCNetError("config inter_spectral 'mha' stands alone; leave continuity and fusion at their defaults")
        if self.continuity == "none" and self.fusion != "paf":
            raise CCNetError(
                f"config continuity 'none' has nothing to fuse by {self.fusion!r}; leave fusion at its default"
            )
        if self.base == "none" and self.base_width != _UNUSED["base_width"]:
            raise CCNetError(f"config base_width is {self.base_width} without a base; set base to 'mlp', too")

    @property
    def size_multiple(self) -> int:
        """Divisor of height and width inside the network, px."""
        return math.lcm(SIZE_MULTIPLE, self.patch)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for checkpoints and manifests; no field that 0.1.0 had not, if unused."""
        return {name: value for name, value in asdict(self).items() if name not in _UNUSED or value != _UNUSED[name]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CCNetConfig:
        """Return the configuration of a checkpoint or manifest.

        Args:
            values: what :meth:`to_dict` returned.

        Returns:
            The configuration.

        Raises:
            CCNetError: unknown fields or impossible values.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise CCNetError(f"config has unknown fields {unknown}: made by another version of ccnet?")
        return cls(**values)
