"""Cameras that are not the weights' own: colour matrices, raw files, exposure and white balance."""
