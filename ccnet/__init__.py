"""CCNet: a 31-band hyperspectral cube (400-700 nm) from one RGB frame."""

import os

# ONNX Runtime reports its use to its maker and keeps an id in the user's cache unless this is set before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.2.0.dev0"
