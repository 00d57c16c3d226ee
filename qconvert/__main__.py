"""``python -m qconvert`` runs the command line."""

from qconvert.cli import main

if __name__ == "__main__":
    main()
