"""CCNet: a 31-band hyperspectral cube (400-700 nm) from one RGB frame."""

import os

# ONNX Runtime reports its use to its maker and keeps an id in the user's cache unless this is set before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenCV and its FFmpeg print around the line that says what is wrong, unless this is set before OpenCV is loaded
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

__version__ = "0.2.0.dev0"
