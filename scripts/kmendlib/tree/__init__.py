# SPDX-License-Identifier: GPL-2.0-only
"""Kernel trees: what is known of them, and what is read from, put into and taken out of them."""
