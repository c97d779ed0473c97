"""Data sets, cameras and spectra: from files on disk to training patches."""
