# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-4.19.y before 4.19.140, and for vendor trees based on it, in
# the order in which they are applied.

# pci-cfg-wait: waiters on the queue only under its own lock. In linux-4.19.y
# itself the upstream fix came with 4.19.140.
pci-cfg-wait/v3.4-v5.8.patch

# nfsd-cb-shutdown: a client goes away with the last of its callbacks. The
# upstream fix, of v5.5, is in no 4.19 release.
nfsd-cb-shutdown/no-wait-v4.19.patch

# nfsd-cb-shutdown/late-notify: no client is told of a lock when it may have been
# expired. No upstream fix up to v7.3.
nfsd-cb-shutdown/late-notify-v4.19-v5.4.patch

# memcg-uncharge: only trees that have split queues of memory cgroups need one
# of the fixes in that folder.
