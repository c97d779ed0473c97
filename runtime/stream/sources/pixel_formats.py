"""Pixel formats of industrial cameras, by the names of GenICam's Pixel Format Naming Convention (PFNC)."""

from __future__ import annotations

import re
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
    def find(cls, name: str, options: SourceOptions) -> PixelFormat:
        """Return the format of a name, if it is what the options expect.

        Args:
            name: The value of the camera's feature PixelFormat, such as BayerRG12.
            options: The samples that are expected.

        Returns:
            The format.

        Raises:
            CCNetError: The format is unknown or packed, or the options describe another one.
        """
        match = _NAME.fullmatch(name)
        kind, bits = (match[1], int(match[2])) if match else ("", 0)
        colour = kind[:3] in ("RGB", "BGR")
        if match is None or (match[3] and not (colour and bits == 8)):
            raise CCNetError(f"PixelFormat is {name}, expected {EXPECTED}: set it after a '?', as in ?PixelFormat=RGB8")
        found = cls(name, kind if colour else "", bits, _PATTERNS.get(kind.removeprefix("Bayer"), ""))
        found._check(options)
        return found

    def _check(self, options: SourceOptions) -> None:
        if not self.channels and not options.bayer:
            bayer = f"{{{_field('bits', self.bits)}, {_field('bayer', self.bayer or 'RGGB')}}}"
            raise CCNetError(
                f"PixelFormat is {self.name}, one sample a pixel, expected R, G and B: describe a Bayer sensor by"
                f" --radiometry with {bayer}, or set ?PixelFormat=RGB8"
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


def _field(name: str, value: object) -> str:
    """Return a field as a radiometry's JSON has it."""
    return f'"{name}": ' + (str(value) if isinstance(value, int) else f'"{value}"')
