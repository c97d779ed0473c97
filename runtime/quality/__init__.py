"""How good a cube is: tolerances between backends and the check against the frame."""
