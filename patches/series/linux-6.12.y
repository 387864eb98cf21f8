# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-6.12.y, in the order in which they are applied.

# pci-cfg-wait: fixed upstream in v5.9, nothing to push.
