"""What nodes and boundaries cost on this machine: profiles, mapped back to the canonical graph."""
