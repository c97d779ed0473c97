"""Tiles: their plan, the context of the whole frame that they are decoded under, and their cubes."""
