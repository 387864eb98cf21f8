# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-6.1.y, in the order in which they are applied.

# pci-cfg-wait, memcg-uncharge: fixed upstream, nothing to push.

# nfsd-cb-shutdown/courtesy-hang: fixed in 6.1.192.

# nfsd-cb-shutdown/inflight-leak: a recall in flight is not run a second time.
# Latent: nfsd gives no write delegation here, and a read delegation is recalled
# once. Who takes those of v6.6 back needs it.
nfsd-cb-shutdown/inflight-leak-v6.1.patch
