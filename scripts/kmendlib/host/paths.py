# SPDX-License-Identifier: GPL-2.0-only
"""Where the driver keeps what it makes: everything lies below one cache folder, outside the repository."""

import os
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]
CONFIGS = SCRIPTS / "configs"


def cache() -> Path:
    """Return the cache folder, ``$XDG_CACHE_HOME/kmend`` (XDG Base Directory Specification 0.8)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "kmend"
