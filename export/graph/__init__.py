"""ONNX graphs: trace, cut, unroll, fuse and convert to mixed precision.

A change of a graph is a pass: a class with a docstring that says what it matches and what it makes.
"""
