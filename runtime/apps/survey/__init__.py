"""Surveys: an archive of frames to cubes, bands, indices or maps, on one machine or on a Dask cluster."""
