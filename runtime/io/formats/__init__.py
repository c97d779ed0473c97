"""File formats: one reader and one writer each, for results and for data sets."""
