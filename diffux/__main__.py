"""`python -m diffux`: the installed command `diffux`."""

from diffux.cli import enter

enter()
