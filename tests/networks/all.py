"""Every network: importing this module fills NETWORKS."""

from networks import hard, interface, sequence, structure, vision, weights
from networks.builder import NETWORKS

__all__ = ["NETWORKS", "hard", "interface", "sequence", "structure", "vision", "weights"]
