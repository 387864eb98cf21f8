# SPDX-License-Identifier: GPL-2.0-only
"""Entry point of ``scripts/kmend``."""

import sys

from kmendlib.cli import main

sys.exit(main(sys.argv[1:]))
