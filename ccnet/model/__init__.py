"""The network of the paper: configuration, blocks, the whole network, ablations and checkpoints."""

from ccnet.model.ccnet import CCNet
from ccnet.model.config import CCNetConfig

__all__ = ["CCNet", "CCNetConfig"]
