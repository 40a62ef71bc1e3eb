"""`python -m tlogs`."""

import sys

from tlogs.cli import main

sys.exit(main())
