"""``python -m winnow.cli``."""

import sys

from winnow.cli import main

sys.exit(main())
