"""Addresses of industrial cameras on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from ccnet.contract import CCNetError

_EXPECTED = "NAME=VALUE&NAME=VALUE after the '?'"


@dataclass(frozen=True)
class CameraAddress:
    """A camera and the features to set, as ``SCHEME:TARGET?NAME=VALUE&NAME=VALUE`` names them."""

    text: str
    target: str
    """Text between the scheme and the question mark; empty for the first that is found."""
    features: dict[str, str]
    """GenICam's name of each feature to set before the first frame, and its value."""

    @classmethod
    def parse(cls, text: str) -> CameraAddress:
        """Return the address that a text holds, or raise a CCNetError."""
        target, _, query = text.partition(":")[2].partition("?")
        try:
            # A plus is a plus, as in 1e+4, and no space
            pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError as error:
            raise CCNetError(f"{text}: {error}, expected {_EXPECTED}") from error
        features = dict(pairs)
        if len(features) < len(pairs) or not all(name and value for name, value in pairs):
            raise CCNetError(f"{text}: a name or value is empty, or a name comes twice, expected {_EXPECTED}")
        return cls(text, target, features)
