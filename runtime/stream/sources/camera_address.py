"""Addresses of industrial cameras on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from ccnet.contract import CCNetError


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
            features = parse_qsl(query, strict_parsing=True) if query else []
        except ValueError as error:
            raise CCNetError(f"{text}: {error}, expected NAME=VALUE&NAME=VALUE after the '?'") from error
        return cls(text, target, dict(features))
