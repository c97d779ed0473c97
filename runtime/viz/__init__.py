"""Pictures of frames, cubes and spectra."""
