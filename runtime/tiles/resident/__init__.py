"""Frames that stay on the GPU: uploaded once, cut to tiles, decoded, and copied into the caller's cube."""
