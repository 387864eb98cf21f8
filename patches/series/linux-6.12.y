# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-6.12.y, in the order in which they are applied.

# pci-cfg-wait, memcg-uncharge: fixed upstream, nothing to push.

# riscv-kvm-exit: the order is fixed in 6.12.117. The leak is latent: kmend
# apply pushes its fix with --latent.

# nfsd-cb-shutdown: a recall in flight is not run a second time. Upstream has
# another fix in v6.15, which 6.12.117 has not got.
nfsd-cb-shutdown/inflight-leak-v6.12.patch
