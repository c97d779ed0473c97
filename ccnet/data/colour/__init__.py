"""Colour matrices from a camera to the weights' camera: from a measured response, or from a photograph of a chart."""
