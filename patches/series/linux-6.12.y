# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-6.12.y, in the order in which they are applied.

# pci-cfg-wait, memcg-uncharge: fixed upstream, nothing to push.

# riscv-kvm-exit: the order is fixed in 6.12.114; up to 6.12.113 kmend apply
# pushes a fix. The leak is latent: its fix is pushed with --latent.

# nfsd-cb-shutdown: a recall in flight is not run a second time. Needed up to
# 6.12.117: 6.12.118 (20 November 2026) has upstream's other fix, of v6.15-rc1.
nfsd-cb-shutdown/inflight-leak-v6.12.patch

# nfsd-cb-shutdown/late-run: no callback is run for a client that may be expired.
# Upstream's, of v6.15-rc1, adapted; 6.12.117 has not got it.
nfsd-cb-shutdown/late-run-v6.12-v6.14.patch

# nfsd-cb-shutdown/recall-count: a delegation that is broken twice is counted
# once. No upstream fix up to v7.3.
nfsd-cb-shutdown/recall-count-v5.10-v7.x.patch

# nfsd-cb-shutdown/late-notify: no client is told of a lock when it may have been
# expired. No upstream fix up to v7.3.
nfsd-cb-shutdown/late-notify-v5.10-v6.14.patch

# hwsim-del/early-free: the pib of a simulated radio is freed when that is
# unregistered. No upstream fix up to v7.3.
hwsim-del/early-free-v4.19-v7.x-edges.patch

# prog-array-clear: a reference for a work that is pending already is given back.
# No upstream fix up to v7.3.
prog-array-clear/v5.5-v7.x.patch

# flow-block-list: a driver's list of flow blocks is walked and changed under a
# mutex. No upstream fix up to v7.3.
flow-block-list/v5.3-v7.x.patch
