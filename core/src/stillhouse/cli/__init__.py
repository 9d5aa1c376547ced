"""The command line: ``stillhouse``. Nothing here imports torch, numpy or pandas before a command needs it."""

from stillhouse.cli.app import main

__all__ = ["main"]
