# SPDX-License-Identifier: GPL-2.0-only
"""Entry point of ``scripts/kmend``."""

import os
import sys

# Python puts no folder in front (-P); ours may have a colon in its name, which PYTHONPATH could not say.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from kmendlib.host import streams  # noqa: E402

streams.prepare()

from kmendlib.cli import main  # noqa: E402

code = main(sys.argv[1:])
streams.leave()
sys.exit(code)
