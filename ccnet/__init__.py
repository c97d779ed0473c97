"""CCNet: a 31-band hyperspectral cube (400-700 nm) from one RGB frame."""

__version__ = "0.2.0.dev0"
