# SPDX-License-Identifier: GPL-2.0-only
"""Kernels built and booted, and what came of it."""
