"""Kernels of the network, one operator a file: reference, gradient and choice of implementation."""
