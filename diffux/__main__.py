"""`python -m diffux`: the installed command `diffux`."""

import sys

from diffux.cli import main

sys.exit(main())
