"""Owns ``python -m tocengine``."""

from tocengine.cli import main

main()
