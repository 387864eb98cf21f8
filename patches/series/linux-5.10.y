# SPDX-License-Identifier: GPL-2.0-only
# Fixes for linux-5.10.y, in the order in which they are applied.

# pci-cfg-wait, memcg-uncharge: fixed upstream, nothing to push.

# nfsd-cb-shutdown/courtesy-hang: nothing is sent to a courtesy client. 5.10.223
# has not got the upstream fix, of v6.14; 5.10.262 has.
nfsd-cb-shutdown/courtesy-hang-v5.10-v6.13.patch

# nfsd-cb-shutdown/late-run: no callback is run for a client that may be expired.
# Upstream's, of v6.15-rc1, adapted; 5.10.223 has not got it.
nfsd-cb-shutdown/late-run-v5.10.patch

# nfsd-cb-shutdown/late-notify: no client is told of a lock when it may have been
# expired. No upstream fix up to v7.3.
nfsd-cb-shutdown/late-notify-v5.10-v6.14.patch

# nfsd-cb-shutdown/inflight-leak and recall-count are latent: kmend apply pushes
# their fixes with --latent.

# hwsim-del/early-free: the pib of a simulated radio is freed when that is
# unregistered. No upstream fix up to v7.3.
hwsim-del/early-free-v4.19-v7.x-edges.patch

# prog-array-clear: a reference for a work that is pending already is given back.
# No upstream fix up to v7.3.
prog-array-clear/v5.5-v7.x.patch

# flow-block-list: a driver's list of flow blocks is walked and changed under a
# mutex. No upstream fix up to v7.3.
flow-block-list/v5.3-v7.x.patch
