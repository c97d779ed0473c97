"""Weights → ONNX graphs → TensorRT engines: export, build, check, bundle and benchmark."""
