"""Every network: importing this module fills NETWORKS."""

from networks import interface, sequence, structure, vision
from networks.builder import NETWORKS

__all__ = ["NETWORKS", "interface", "sequence", "structure", "vision"]
