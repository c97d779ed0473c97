"""Pixel formats of industrial cameras, by the names of GenICam's Pixel Format Naming Convention (PFNC)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccnet.contract import CCNetError

from .source import Pixels, SourceOptions

_NAME = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG)|(?:RGB|BGR)[aA]?)(8|10|12|16)(Packed)?")
_PATTERNS = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}

EXPECTED = "RGB8, BGR8, RGBa8, BGRa8, or, described by --radiometry, Mono, Bayer, RGB or BGR of 8, 10, 12 or 16 bits"


@dataclass(frozen=True)
class PixelFormat:
    """The layout of a camera's pixels in a buffer: 1 byte a sample for 8 bits, else 2 bytes, little-endian."""

    name: str
    channels: str
    """Order of the samples of a pixel, such as BGRa; empty for one sample per pixel."""
    bits: int
    """Bits of a sample, in the low bits of its bytes."""
    bayer: str
    """Colours of the first 2×2 px, such as RGGB; empty if the format does not say them."""

    @classmethod
    def find(cls, name: str, options: SourceOptions, offered: Sequence[str]) -> PixelFormat:
        """Return the format of a name, if it is what the options expect.

        Args:
            name: The value of the camera's feature PixelFormat, such as BayerRG12.
            options: The samples that are expected.
            offered: The formats that the camera has, for the advice in errors.

        Returns:
            The format.

        Raises:
            CCNetError: The format is unknown or packed, or the options describe another one.
        """
        readable = [each for each in map(cls._parse, offered) if each]
        found = cls._parse(name)
        if found is None:
            names = [each.name for each in readable]
            advice = f"set it after a '?', as in {_setting(names)}" if names else "the camera has none of them"
            raise CCNetError(f"PixelFormat is {name}, expected {EXPECTED}: {advice}")
        found._check(options, [each.name for each in readable if each.channels and each.bits == 8])
        return found

    @classmethod
    def _parse(cls, name: str) -> PixelFormat | None:
        """Return the format of a name; None for a format that is unknown or packed."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        kind, bits = match[1], int(match[2])
        colour = kind[:3] in ("RGB", "BGR")
        if match[3] and not (colour and bits == 8):
            return None
        return cls(name, kind if colour else "", bits, _PATTERNS.get(kind.removeprefix("Bayer"), ""))

    def _check(self, options: SourceOptions, offered_colour: Sequence[str]) -> None:
        """Raise CCNetError where the options describe another format; ``offered_colour`` needs no radiometry."""
        if not self.channels and not options.bayer:
            bayer = f"{{{_field('bits', self.bits)}, {_field('bayer', self.bayer or 'RGGB')}}}"
            advice = f"set {_setting(offered_colour)}" if offered_colour else "take a camera with a colour format"
            raise CCNetError(
                f"PixelFormat is {self.name}, one sample a pixel, expected R, G and B: describe a Bayer sensor by"
                f" --radiometry with {bayer}, or {advice}"
            )
        if self.channels and options.bayer:
            raise CCNetError(
                f"PixelFormat is {self.name}, but --radiometry has {_field('bayer', options.bayer)}: leave it out, or"
                " set a Bayer format after a '?'"
            )
        if self.bayer and self.bayer != options.bayer:
            raise CCNetError(
                f"PixelFormat is {self.name}, but --radiometry has {_field('bayer', options.bayer)}, expected"
                f" {self.bayer}"
            )
        if self.bits != options.bits:
            raise CCNetError(
                f"PixelFormat is {self.name}, expected {options.bits} bits: set {_field('bits', self.bits)} in"
                " --radiometry"
            )

    def decode(self, data: bytes, height: int, width: int, row_padding: int = 0) -> Pixels:
        """Copy the pixels out of a buffer.

        Args:
            data: The buffer; bytes after the last row are ignored.
            height: Rows of the frame, px.
            width: Columns of the frame, px.
            row_padding: Bytes after each row.

        Returns:
            (H, W, 3) in the order R, G, B, or (H, W) for one sample per pixel; uint8 or uint16.

        Raises:
            CCNetError: The buffer is too small.
        """
        dtype = np.dtype("u1" if self.bits == 8 else "<u2")
        row = width * max(len(self.channels), 1) * dtype.itemsize
        needed = height * (row + row_padding)
        if len(data) < needed or not needed:
            raise CCNetError(f"a buffer has {len(data)} bytes, a {self.name} frame of {width}x{height} px {needed}")
        rows = np.frombuffer(data, np.uint8, needed).reshape(height, row + row_padding)
        samples = np.ascontiguousarray(rows[:, :row]).view(dtype)
        if not self.channels:
            return samples.copy()  # writable, and the buffer's other bytes are freed
        return samples.reshape(height, width, -1)[..., [self.channels.index(channel) for channel in "RGB"]]


def _setting(names: Sequence[str]) -> str:
    """Return the ends of a camera's address that set one of these formats."""
    return f"?PixelFormat={' or '.join(names)}"


def _field(name: str, value: object) -> str:
    """Return a field as a radiometry's JSON has it."""
    return f'"{name}": ' + (str(value) if isinstance(value, int) else f'"{value}"')
