"""``ccnet view``: a local page that shows cubes, their spectra and how two of them differ.

The page names cubes, bands and pixels by number: no request contains the name of a file.
"""
