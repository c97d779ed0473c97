"""The ``ccnet`` command line."""
