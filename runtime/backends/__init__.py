"""Run graphs and engines: one file for each backend, the choice among them, and the loading of their files."""
