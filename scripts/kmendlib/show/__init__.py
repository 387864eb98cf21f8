# SPDX-License-Identifier: GPL-2.0-only
"""What evidence looks like to people and to other programs."""
