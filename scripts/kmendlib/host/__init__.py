# SPDX-License-Identifier: GPL-2.0-only
"""What the driver asks of the machine: packages, processes, folders, words."""
