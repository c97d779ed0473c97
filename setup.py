"""The option that pyproject.toml cannot express: CCNET_PURE=1 leaves the C code out, for a wheel for any machine."""

from __future__ import annotations

import os
from typing import Any

from setuptools import Distribution, setup


class PureDistribution(Distribution):
    """The package without extension modules: the same results, slower on CPUs."""

    def parse_config_files(self, *args: Any, **kwargs: Any) -> None:
        """Read pyproject.toml, and drop the extension modules that it lists."""
        super().parse_config_files(*args, **kwargs)
        self.ext_modules = []


setup(distclass=PureDistribution if os.environ.get("CCNET_PURE") else Distribution)
