"""What the scripts of this folder open: `diffux <command>`, also in a clone that was not installed."""

import importlib.util
import pathlib
import sys

if importlib.util.find_spec("diffux") is None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from diffux import cli


def enter(command: str) -> None:
    """Run the command with this process's arguments, and end with its status."""
    cli.enter([command, *sys.argv[1:]])
