"""ONNX graphs: trace, cut, unroll, fuse and convert to mixed precision."""
