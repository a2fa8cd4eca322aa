"""Trains the demo checkpoint: `python -m phi4mm_cli.demo.training --help`."""
