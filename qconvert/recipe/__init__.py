"""What the user wants, as frozen dataclasses, to and from YAML."""
