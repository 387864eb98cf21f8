# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rules for nfsd-cb-shutdown: made-up files of each shape, mutants, and real trees where at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import by_status, coccicheck, lay, look_at
from kmendlib.host.errors import BadInput
from kmendlib.tree import manifest
from kmendlib.tree.apply import refuse_undecided
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.tree import Tree

BUG = manifest.load().bug("nfsd-cb-shutdown")
CALLBACK = "fs/nfsd/nfs4callback.c"
STATE = "fs/nfsd/nfs4state.c"

NO_WAIT, LEAK, COURTESY = "no-wait", "inflight-leak", "courtesy-hang"
LATE, RECALL, NOTIFY = "late-run", "recall-count", "late-notify"

# fs/nfsd/nfs4callback.c as far as the rules look at it, up to v5.4.
UNCOUNTED = """\
static const struct rpc_call_ops nfsd4_cb_probe_ops = {
	.rpc_call_done = nfsd4_cb_probe_done,
};

static struct workqueue_struct *callback_wq;

void nfsd4_probe_callback(struct nfs4_client *clp)
{
	set_bit(NFSD4_CLIENT_CB_UPDATE, &clp->cl_flags);
	nfsd4_run_cb(&clp->cl_cb_null);
}

static void nfsd4_cb_release(void *calldata)
{
	struct nfsd4_callback *cb = calldata;

	if (cb->cb_need_restart)
		nfsd4_run_cb(cb);
	else
		cb->cb_ops->release(cb);

}

static const struct rpc_call_ops nfsd4_cb_ops = {
	.rpc_call_prepare = nfsd4_cb_prepare,
	.rpc_release = nfsd4_cb_release,
};

void nfsd4_shutdown_callback(struct nfs4_client *clp)
{
	set_bit(NFSD4_CLIENT_CB_KILL, &clp->cl_flags);
	nfsd4_run_cb(&clp->cl_cb_null);
	flush_workqueue(callback_wq);
}

static void
nfsd4_run_cb_work(struct work_struct *work)
{
	struct nfsd4_callback *cb =
		container_of(work, struct nfsd4_callback, cb_work);
	struct nfs4_client *clp = cb->cb_clp;
	struct rpc_clnt *clnt;

	clnt = clp->cl_cb_client;
	if (!clnt) {
		if (cb->cb_ops && cb->cb_ops->release)
			cb->cb_ops->release(cb);
		return;
	}
	if (!cb->cb_ops && clp->cl_minorversion) {
		clp->cl_cb_state = NFSD4_CB_UP;
		return;
	}
	rpc_call_async(clnt, &cb->cb_msg, RPC_TASK_SOFT,
			cb->cb_ops ? &nfsd4_cb_ops : &nfsd4_cb_probe_ops, cb);
}

void nfsd4_init_cb(struct nfsd4_callback *cb, struct nfs4_client *clp)
{
	INIT_WORK(&cb->cb_work, nfsd4_run_cb_work);
}

void nfsd4_run_cb(struct nfsd4_callback *cb)
{
	queue_work(callback_wq, &cb->cb_work);
}
"""

# From v5.5 on.
COUNTED = """\
static bool nfsd4_queue_cb(struct nfsd4_callback *cb)
{
	return queue_work(callback_wq, &cb->cb_work);
}

static void nfsd41_cb_inflight_begin(struct nfs4_client *clp)
{
	atomic_inc(&clp->cl_cb_inflight);
}

static void nfsd41_cb_inflight_end(struct nfs4_client *clp)
{
	if (atomic_dec_and_test(&clp->cl_cb_inflight))
		wake_up_var(&clp->cl_cb_inflight);
}

static void nfsd41_cb_inflight_wait_complete(struct nfs4_client *clp)
{
	wait_var_event(&clp->cl_cb_inflight,
			!atomic_read(&clp->cl_cb_inflight));
}

static void nfsd4_cb_probe_release(void *calldata)
{
	struct nfs4_client *clp = container_of(calldata, struct nfs4_client, cl_cb_null);

	nfsd41_cb_inflight_end(clp);
}

static const struct rpc_call_ops nfsd4_cb_probe_ops = {
	.rpc_call_done = nfsd4_cb_probe_done,
	.rpc_release = nfsd4_cb_probe_release,
};

void nfsd4_probe_callback(struct nfs4_client *clp)
{
	set_bit(NFSD4_CLIENT_CB_UPDATE, &clp->cl_flags);
	nfsd4_run_cb(&clp->cl_cb_null);
}

static void nfsd41_destroy_cb(struct nfsd4_callback *cb)
{
	struct nfs4_client *clp = cb->cb_clp;

	nfsd41_cb_release_slot(cb);
	if (cb->cb_ops && cb->cb_ops->release)
		cb->cb_ops->release(cb);
	nfsd41_cb_inflight_end(clp);
}

static void nfsd4_cb_release(void *calldata)
{
	struct nfsd4_callback *cb = calldata;

	if (cb->cb_need_restart)
		nfsd4_queue_cb(cb);
	else
		nfsd41_destroy_cb(cb);

}

static const struct rpc_call_ops nfsd4_cb_ops = {
	.rpc_call_prepare = nfsd4_cb_prepare,
	.rpc_release = nfsd4_cb_release,
};

void nfsd4_shutdown_callback(struct nfs4_client *clp)
{
	set_bit(NFSD4_CLIENT_CB_KILL, &clp->cl_flags);
	nfsd4_run_cb(&clp->cl_cb_null);
	flush_workqueue(callback_wq);
	nfsd41_cb_inflight_wait_complete(clp);
}

static void
nfsd4_run_cb_work(struct work_struct *work)
{
	struct nfsd4_callback *cb =
		container_of(work, struct nfsd4_callback, cb_work);
	struct nfs4_client *clp = cb->cb_clp;
	struct rpc_clnt *clnt;

	clnt = clp->cl_cb_client;
	if (!clnt || clp->cl_state == NFSD4_COURTESY) {
		/* No channel, or nobody there. */
		nfsd41_destroy_cb(cb);
		return;
	}
	if (!cb->cb_ops && clp->cl_minorversion) {
		clp->cl_cb_state = NFSD4_CB_UP;
		nfsd41_destroy_cb(cb);
		return;
	}
	rpc_call_async(clnt, &cb->cb_msg, RPC_TASK_SOFT,
			cb->cb_ops ? &nfsd4_cb_ops : &nfsd4_cb_probe_ops, cb);
}

void nfsd4_init_cb(struct nfsd4_callback *cb, struct nfs4_client *clp)
{
	INIT_WORK(&cb->cb_work, nfsd4_run_cb_work);
	atomic_set(&clp->cl_cb_inflight, 0);
}

bool nfsd4_run_cb(struct nfsd4_callback *cb)
{
	struct nfs4_client *clp = cb->cb_clp;
	bool queued;

	nfsd41_cb_inflight_begin(clp);
	queued = nfsd4_queue_cb(cb);
	if (!queued)
		nfsd41_cb_inflight_end(clp);
	return queued;
}
"""

# fs/nfsd/nfs4state.c: who runs a callback, what is delegated, and the end of a client.
OWNER = """\
static void nfsd_break_one_deleg(struct nfs4_delegation *dp)
{
	refcount_inc(&dp->dl_stid.sc_count);
	nfsd4_run_cb(&dp->dl_recall);
}

static void nfs4_open_delegation(struct nfsd4_open *open, struct nfs4_delegation *dp)
{
	if (open->op_share_access & NFS4_SHARE_ACCESS_WRITE)
		open->op_delegate_type = NFS4_OPEN_DELEGATE_WRITE;
	else
		open->op_delegate_type = NFS4_OPEN_DELEGATE_READ;
	return;
no_deleg:
	open->op_delegate_type = NFS4_OPEN_DELEGATE_NONE;
}

static void nfs4_lockowner_notify(struct nfsd4_blocked_lock *nbl)
{
	nfsd4_run_cb(&nbl->nbl_cb);
}

static void nfs4_lapse(struct nfs4_client *clp)
{
	clp->cl_state = NFSD4_COURTESY;
}

static void __destroy_client(struct nfs4_client *clp)
{
	nfsd4_shutdown_callback(clp);
	free_client(clp);
}
"""


def edit(text: str, *pairs: tuple[str, str]) -> str:
    """Return `text` with each old part, which is there once, replaced by its new one."""
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


READS = edit(OWNER, ("DELEGATE_WRITE", "DELEGATE_READ_TOO"))
UNCOURTEOUS = edit(OWNER, ("clp->cl_state = NFSD4_COURTESY;", "return;"))
RUN_LATCH = (
    "	nfsd41_cb_inflight_begin(clp);\n",
    "	if (cb->cb_ops && test_and_set_bit_lock(0, &cb->cb_running))\n		return false;\n\n"
    "	nfsd41_cb_inflight_begin(clp);\n",
)
OPEN = (
    "	nfsd41_cb_release_slot(cb);\n	if",
    "	nfsd41_cb_release_slot(cb);\n	clear_bit_unlock(0, &cb->cb_running);\n	if",
)
CALLER_OPEN = (OPEN[0], OPEN[1].replace("&cb->cb_running", "&cb->cb_flags"))
CALLER_LATCH = (
    "	refcount_inc(&dp->dl_stid.sc_count);\n",
    "	if (test_and_set_bit(0, &dp->dl_recall.cb_flags))\n		return;\n	refcount_inc(&dp->dl_stid.sc_count);\n",
)
REQUEUE = "	if (cb->cb_need_restart)\n		nfsd4_queue_cb(cb);\n	else\n		nfsd41_destroy_cb(cb);\n"
DROPS = (REQUEUE, "	if (!cb->cb_need_restart || !nfsd4_queue_cb(cb))\n		nfsd41_destroy_cb(cb);\n")
FLUSH = "	flush_workqueue(callback_wq);\n"
WAIT = "	nfsd41_cb_inflight_wait_complete(clp);\n"
LAST = "	queued = nfsd4_queue_cb(cb);\n	if (!queued)\n		nfsd41_cb_inflight_end(clp);\n	return queued;\n"
NO_CHANNEL = "		/* No channel, or nobody there. */\n		nfsd41_destroy_cb(cb);\n"
PROBE_UP = "		clp->cl_cb_state = NFSD4_CB_UP;\n		nfsd41_destroy_cb(cb);\n"
PROBE_RELEASE = "cl_cb_null);\n\n	nfsd41_cb_inflight_end(clp);\n"
COURTESY_TEST = "if (!clnt || clp->cl_state == NFSD4_COURTESY) {"
# Helpers written out, as in the variants for v4.19 and v5.0 to v5.4.
INLINE = edit(
    COUNTED,
    ("	queued = nfsd4_queue_cb(cb);", "	queued = queue_work(callback_wq, &cb->cb_work);"),
    ("bool queued;\n\n	nfsd41_cb_inflight_begin(clp);", "bool queued;\n\n	atomic_inc(&clp->cl_cb_inflight);"),
    (WAIT, "	wait_var_event(&clp->cl_cb_inflight, !atomic_read(&clp->cl_cb_inflight));\n"),
)
RENAMED = COUNTED.replace("nfsd41_", "vendor_").replace("cl_cb_inflight", "cl_cbs").replace("queue_cb", "enqueue")

MakeNfsd = Callable[..., Path]


def renamed(text: str) -> str:
    """Return `text` where who runs a callback has another name."""
    return text.replace("nfsd4_run_cb(", "vendor_start(")


@pytest.fixture
def make_nfsd(tmp_path: Path) -> MakeNfsd:
    """Return a function that makes a small kernel tree with NFSD files and returns its path."""

    def make(callback: str | None, owner: str | None = OWNER, version: str = "6.12.1") -> Path:
        return lay(tmp_path, {CALLBACK: callback, STATE: owner}, version)

    return make


# What is wrong, and a part of the reason that must be given.
HALF = {
    "as it was": (UNCOUNTED, "flush_workqueue() does not wait"),
    "wait missing": (edit(COUNTED, (WAIT, "")), "does not wait for cl_cb_inflight"),
    "waits on one path": (
        edit(COUNTED, (WAIT, "	if (clp->cl_minorversion)\n	" + WAIT)),
        "waits for cl_cb_inflight on one path only",
    ),
    "returns before it waits": (
        edit(COUNTED, (FLUSH, FLUSH + "	if (!clp->cl_minorversion)\n		return;\n")),
        "waits for cl_cb_inflight on one path only",
    ),
    "kills after it waited": (
        edit(
            COUNTED,
            (WAIT, ""),
            ("	set_bit(NFSD4_CLIENT_CB_KILL", WAIT + "	set_bit(NFSD4_CLIENT_CB_KILL"),
        ),
        "calls nfsd4_run_cb() after it waited",
    ),
    "not counted": (
        edit(COUNTED, ("bool queued;\n\n	nfsd41_cb_inflight_begin(clp);", "bool queued;\n")),
        "nfsd4_run_cb() queues a callback that it has not counted",
    ),
    "probes not counted": (
        edit(
            COUNTED,
            ("bool queued;\n\n	nfsd41", "bool queued;\n\n	if (cb->cb_ops)\n		nfsd41"),
        ),
        "nfsd4_run_cb() queues a callback that it has not counted",
    ),
    "probe queued past the count": (
        edit(
            COUNTED,
            (
                "cl_flags);\n	nfsd4_run_cb(&clp->cl_cb_null);\n}",
                "cl_flags);\n	nfsd4_queue_cb(&clp->cl_cb_null);\n}",
            ),
        ),
        "nfsd4_probe_callback() queues a callback that it has not counted",
    ),
    "kept when queued already": (
        edit(COUNTED, (LAST, "	queued = nfsd4_queue_cb(cb);\n	return queued;\n")),
        "keeps the count of a callback that is queued already",
    ),
    "result of the queueing ignored": (
        edit(COUNTED, (LAST, "	nfsd4_queue_cb(cb);\n	return true;\n")),
        "keeps the count of a callback that is queued already",
    ),
    "no end without a channel": (
        edit(COUNTED, (NO_CHANNEL, "		cb->cb_ops->release(cb);\n")),
        "nfsd4_run_cb_work() returns here without",
    ),
    "no end of a 4.1 probe": (
        edit(COUNTED, (PROBE_UP, "		clp->cl_cb_state = NFSD4_CB_UP;\n")),
        "nfsd4_run_cb_work() returns here without",
    ),
    "no end of a probe that was sent": (
        edit(COUNTED, (PROBE_RELEASE, "cl_cb_null);\n\n	pr_debug(clp);\n")),
        "nfsd4_cb_probe_release() returns on one path without",
    ),
    "no release of a probe": (
        edit(COUNTED, ("	.rpc_release = nfsd4_cb_probe_release,\n", "")),
        "nfsd4_cb_probe_ops has no ->rpc_release",
    ),
    "no end in the release": (
        edit(COUNTED, ("	else\n		nfsd41_destroy_cb(cb);\n", "	else\n		cb->cb_ops->release(cb);\n")),
        "nfsd4_cb_release() returns on one path without",
    ),
    "end on one path of the release": (
        edit(
            COUNTED,
            (
                "release(cb);\n	nfsd41_cb_inflight_end(clp);",
                "release(cb);\n	if (cb->cb_ops)\n		nfsd41_cb_inflight_end(clp);",
            ),
        ),
        "nfsd41_destroy_cb() returns on one path without",
    ),
    "counted again when restarted": (
        edit(COUNTED, (REQUEUE, REQUEUE.replace("queue_cb", "run_cb"))),
        "nfsd4_cb_release() counts a callback again",
    ),
    "queued again and ended": (
        edit(
            COUNTED,
            (REQUEUE, "	if (cb->cb_need_restart)\n		nfsd4_queue_cb(cb);\n	nfsd41_destroy_cb(cb);\n"),
        ),
        "ends the count of a callback that it has queued again",
    ),
    "written out, wait missing": (edit(INLINE, (INLINE[INLINE.index(FLUSH) :].split("}")[0], FLUSH)), "does not wait"),
    "renamed, no end of a 4.1 probe": (
        edit(RENAMED, (PROBE_UP.replace("nfsd41_", "vendor_"), "		clp->cl_cb_state = NFSD4_CB_UP;\n")),
        "nfsd4_run_cb_work() returns here without",
    ),
}

SOUND = {
    "upstream": COUNTED,
    "written out": INLINE,
    "helpers and counter renamed": RENAMED,
    "dec and wake in one": edit(
        COUNTED,
        (
            "	if (atomic_dec_and_test(&clp->cl_cb_inflight))\n		wake_up_var(&clp->cl_cb_inflight);\n",
            "	atomic_dec_and_wake_up(&clp->cl_cb_inflight);\n",
        ),
    ),
    "a queue of its own": edit(
        COUNTED,
        (
            "	wait_var_event(&clp->cl_cb_inflight,\n			!atomic_read(&clp->cl_cb_inflight));\n",
            "	wait_event(clp->cl_cb_done, atomic_read(&clp->cl_cb_inflight) == 0);\n",
        ),
    ),
    "refcount": COUNTED.replace("atomic_", "refcount_"),
    "not queued, said at once": edit(
        COUNTED, (LAST, "	if (!nfsd4_queue_cb(cb))\n		nfsd41_cb_inflight_end(clp);\n	return true;\n")
    ),
    "queued, said at once": edit(
        COUNTED,
        (
            LAST,
            "	if (nfsd4_queue_cb(cb))\n		return true;\n	nfsd41_cb_inflight_end(clp);\n	return false;\n",
        ),
    ),
    "no flush, a wait alone": edit(COUNTED, (FLUSH, "")),
    "who runs a callback renamed": renamed(COUNTED),
}

STRANGE = {
    "empty": "",
    "shutdown renamed": UNCOUNTED.replace("nfsd4_shutdown_callback", "nfsd4_stop_callback"),
    "shutdown does not parse": edit(UNCOUNTED, (FLUSH, "	%% ((\n")),
    "run does not parse": edit(COUNTED, (LAST, "	%% ((\n")),
    "waits in a function that is elsewhere": edit(UNCOUNTED, (FLUSH, FLUSH + "	vendor_wait_callbacks(clp);\n")),
    "looks again and again": edit(
        COUNTED, (WAIT, "	while (atomic_read(&clp->cl_cb_inflight))\n		msleep(20);\n")
    ),
    "gives up after a while": edit(
        COUNTED, ("	wait_var_event(&clp->cl_cb_inflight,", "	wait_var_event_timeout(&clp->cl_cb_inflight,")
    ),
    "waits for the contrary": edit(COUNTED, ("!atomic_read(", "atomic_read(")),
    "count set back": edit(COUNTED, (FLUSH, FLUSH + "	atomic_andnot(1, &clp->cl_cb_inflight);\n")),
    "percpu reference": COUNTED.replace("atomic_inc(", "percpu_ref_get(").replace(
        "atomic_dec_and_test(", "percpu_ref_put("
    ),
}


@pytest.mark.parametrize("name", HALF)
def test_no_wait_affected(make_nfsd: MakeNfsd, name: str) -> None:
    callback, reason = HALF[name]
    found = look_at(make_nfsd(callback), BUG, NO_WAIT)
    assert found.status is Status.AFFECTED, found
    assert any(reason in evidence.reason for evidence in found.evidence), found


# A wait that cannot be understood is no proof of its absence.
@pytest.mark.parametrize(("callback", "status"), by_status(FIXED=SOUND, UNKNOWN=STRANGE))
def test_no_wait_not_affected(make_nfsd: MakeNfsd, callback: str, status: Status) -> None:
    found = look_at(make_nfsd(callback), BUG, NO_WAIT)
    assert found.status is status, found


def test_no_wait_unknown_where_the_caller_waits(make_nfsd: MakeNfsd) -> None:
    call = "	nfsd4_shutdown_callback(clp);\n"
    owner = edit(OWNER, (call, call + "	wait_event(clp->cl_done, !clp->cl_busy);\n"))
    assert look_at(make_nfsd(UNCOUNTED, owner), BUG, NO_WAIT).status is Status.UNKNOWN


def test_no_wait_needs_no_other_file(make_nfsd: MakeNfsd) -> None:
    root = make_nfsd(UNCOUNTED, None)
    found = look_at(root, BUG, NO_WAIT, fix=True)
    assert found.status is Status.AFFECTED
    # A fix does: that is no word on whether one fits.
    assert found.evidence[-1].reason == "no fix can be tried without fs/nfsd/state.h"
    with pytest.raises(BadInput, match="affected, but no fix can be tried without fs/nfsd/state.h: give the whole"):
        refuse_undecided(audit(Tree.open(root), manifest.load().select([f"{BUG.id}/{NO_WAIT}"])))


LEAKS = {
    "upstream": (COUNTED, OWNER, Status.AFFECTED),
    "who delegates what is not known": (COUNTED, None, Status.UNKNOWN),
    "read delegations alone": (COUNTED, READS, Status.LATENT),
    "delegations of any kind": (
        COUNTED,
        edit(OWNER, ("= NFS4_OPEN_DELEGATE_WRITE;", "= dp->dl_type;")),
        Status.AFFECTED,
    ),
    "not counted": (UNCOUNTED, OWNER, Status.NOT_APPLICABLE),
    "no latch needed": (edit(COUNTED, DROPS), OWNER, Status.FIXED),
    "requeue ends the count": (
        edit(
            COUNTED,
            (
                REQUEUE,
                "	if (cb->cb_need_restart) {\n		if (!nfsd4_queue_cb(cb))\n"
                "			nfsd41_cb_inflight_end(cb->cb_clp);\n"
                "	} else {\n		nfsd41_destroy_cb(cb);\n	}\n",
            ),
        ),
        OWNER,
        Status.FIXED,
    ),
    "latch in nfsd4_run_cb()": (edit(COUNTED, RUN_LATCH, OPEN), OWNER, Status.FIXED),
    "latch that never opens": (edit(COUNTED, RUN_LATCH), OWNER, Status.UNKNOWN),
    "latch that is not looked at": (
        edit(
            COUNTED,
            (RUN_LATCH[0], "	test_and_set_bit_lock(0, &cb->cb_running);\n" + RUN_LATCH[0]),
            OPEN,
        ),
        OWNER,
        Status.UNKNOWN,
    ),
    "latch the wrong way round": (
        edit(COUNTED, (RUN_LATCH[0], RUN_LATCH[1].replace("cb->cb_ops && test", "!test")), OPEN),
        OWNER,
        Status.UNKNOWN,
    ),
    "latch in the caller": (edit(COUNTED, CALLER_OPEN), edit(OWNER, CALLER_LATCH), Status.FIXED),
    "latch in the caller, on one path": (
        edit(COUNTED, CALLER_OPEN),
        edit(OWNER, (CALLER_LATCH[0], CALLER_LATCH[1].replace("if (test", "if (dp->dl_time && test"))),
        Status.UNKNOWN,
    ),
    "latch of another callback": (
        edit(COUNTED, CALLER_OPEN),
        edit(OWNER, (CALLER_LATCH[0], CALLER_LATCH[1].replace("dp->dl_recall", "dp->dl_other"))),
        Status.AFFECTED,
    ),
    "a callback that nobody knows, without a latch": (
        edit(COUNTED, CALLER_OPEN),
        edit(OWNER, CALLER_LATCH, ("nbl->nbl_cb", "nbl->nbl_vendor")),
        Status.UNKNOWN,
    ),
    "latch in the caller, not opened": (COUNTED, edit(OWNER, CALLER_LATCH), Status.AFFECTED),
    "count kept in nfsd4_run_cb()": (
        edit(COUNTED, DROPS, (LAST, "	return nfsd4_queue_cb(cb);\n")),
        OWNER,
        Status.AFFECTED,
    ),
    "no end of a 4.1 probe": (
        edit(COUNTED, DROPS, (PROBE_UP, "		clp->cl_cb_state = NFSD4_CB_UP;\n")),
        OWNER,
        Status.AFFECTED,
    ),
    "queued again when it was not sent": (
        edit(
            COUNTED,
            DROPS,
            ("	rpc_call_async(clnt", "	ret = rpc_call_async(clnt"),
            ("nfsd4_cb_probe_ops, cb);\n", "nfsd4_cb_probe_ops, cb);\n	if (ret)\n		nfsd4_queue_cb(cb);\n"),
        ),
        OWNER,
        Status.LATENT,
    ),
    "who runs a callback renamed": (renamed(COUNTED), renamed(OWNER), Status.AFFECTED),
    "who runs a callback renamed, with a latch": (
        renamed(edit(COUNTED, RUN_LATCH, OPEN)),
        renamed(OWNER),
        Status.FIXED,
    ),
    "who runs a callback renamed, latch in the caller": (
        renamed(edit(COUNTED, CALLER_OPEN)),
        renamed(edit(OWNER, CALLER_LATCH)),
        Status.FIXED,
    ),
    "who runs a callback renamed, latch of another callback": (
        renamed(edit(COUNTED, CALLER_OPEN)),
        renamed(edit(OWNER, (CALLER_LATCH[0], CALLER_LATCH[1].replace("dp->dl_recall", "dp->dl_other")))),
        Status.AFFECTED,
    ),
    "counted in a way that nobody knows": (edit(STRANGE["count set back"], DROPS), OWNER, Status.UNKNOWN),
}


def test_leak_where_nobody_runs_a_callback(make_nfsd: MakeNfsd) -> None:
    """No latch is named that is not there."""
    run = COUNTED[COUNTED.index("bool nfsd4_run_cb(") :]
    found = look_at(make_nfsd(edit(COUNTED, (run, ""))), BUG, LEAK)
    assert found.status is Status.UNKNOWN, found
    assert [each.reason for each in found.evidence if "latch" in each.reason] == []
    assert any("there is no nfsd4_run_cb() here" in each.reason for each in found.evidence), found


@pytest.mark.parametrize("finding", [NO_WAIT, LEAK])
def test_rule_says_by_which_function_it_knows_the_code(make_nfsd: MakeNfsd, finding: str) -> None:
    found = look_at(make_nfsd(COUNTED.replace("nfsd4_shutdown_callback", "vendor_shut_down")), BUG, finding)
    reason = "no nfsd4_shutdown_callback() here, by which nfsd-cb-shutdown.cocci knows the code"
    assert found.status is Status.UNKNOWN
    assert [(each.file, each.line, each.reason) for each in found.evidence] == [(CALLBACK, 0, reason)]


@pytest.mark.parametrize("name", LEAKS)
def test_inflight_leak(make_nfsd: MakeNfsd, name: str) -> None:
    callback, owner, status = LEAKS[name]
    found = look_at(make_nfsd(callback, owner), BUG, LEAK)
    assert found.status is status, found


TEST = COURTESY_TEST
COURTESIES = {
    "upstream": (COUNTED, OWNER, Status.FIXED),
    "test after the others": (
        edit(COUNTED, (TEST, "if (clp->cl_state == NFSD4_COURTESY || !clnt) {")),
        OWNER,
        Status.FIXED,
    ),
    "a test of its own": (
        edit(COUNTED, (TEST, "if (NFSD4_COURTESY == clp->cl_state)\n		return;\n	if (!clnt) {")),
        OWNER,
        Status.FIXED,
    ),
    "whoever is not active": (
        edit(COUNTED, (TEST, "if (clp->cl_state != NFSD4_ACTIVE || !clnt) {")),
        OWNER,
        Status.FIXED,
    ),
    "not known elsewhere": (COUNTED, None, Status.FIXED),
    "no test": (edit(COUNTED, (TEST, "if (!clnt) {")), OWNER, Status.AFFECTED),
    "test on one path": (
        edit(COUNTED, (TEST, "if (clp->cl_ra && clp->cl_state == NFSD4_COURTESY)\n		return;\n	if (!clnt) {")),
        OWNER,
        Status.UNKNOWN,
    ),
    "test on one path, in a block": (
        edit(
            COUNTED,
            (
                TEST,
                "if (clp->cl_ra) {\n		if (clp->cl_state == NFSD4_COURTESY)\n			return;\n	}\n"
                "	if (!clnt) {",
            ),
        ),
        OWNER,
        Status.AFFECTED,
    ),
    "a test that changes nothing": (
        edit(COUNTED, (TEST, "if (clp->cl_state == NFSD4_COURTESY)\n		pr_debug(clp);\n	if (!clnt) {")),
        OWNER,
        Status.UNKNOWN,
    ),
    "tested before it is queued": (
        edit(
            COUNTED,
            (TEST, "if (!clnt) {"),
            ("bool queued;\n", "bool queued;\n\n	if (clp->cl_state == NFSD4_COURTESY)\n		return false;\n"),
        ),
        OWNER,
        Status.UNKNOWN,
    ),
    "no courtesy": (edit(COUNTED, (TEST, "if (!clnt) {")), UNCOURTEOUS, Status.NOT_APPLICABLE),
    "no courtesy, not counted": (UNCOUNTED, UNCOURTEOUS, Status.NOT_APPLICABLE),
    "no courtesy, and tested": (COUNTED, UNCOURTEOUS, Status.UNKNOWN),
    "courtesy not known": (edit(COUNTED, (TEST, "if (!clnt) {")), None, Status.UNKNOWN),
    "nothing is sent": ("int x;\n", OWNER, Status.UNKNOWN),
    "sent from elsewhere": (edit(COUNTED, ("cb_work, nfsd4_run", "cb_work, vendor_run")), OWNER, Status.UNKNOWN),
}


@pytest.mark.parametrize("name", COURTESIES)
def test_courtesy_hang(make_nfsd: MakeNfsd, name: str) -> None:
    callback, owner, status = COURTESIES[name]
    found = look_at(make_nfsd(callback, owner), BUG, COURTESY)
    assert found.status is status, found


# fs/nfsd/nfs4state.c from v6.9 to v6.14: who is asked for delegations, and how those in recall are counted.
REAPER = """\
static void
deleg_reaper(struct nfsd_net *nn)
{
	struct list_head *pos, *next;
	struct nfs4_client *clp;
	LIST_HEAD(cblist);

	spin_lock(&nn->client_lock);
	list_for_each_safe(pos, next, &nn->client_lru) {
		clp = list_entry(pos, struct nfs4_client, cl_lru);
		if (clp->cl_state != NFSD4_ACTIVE)
			continue;
		list_add(&clp->cl_ra_cblist, &cblist);
		kref_get(&clp->cl_nfsdfs.cl_ref);
	}
	spin_unlock(&nn->client_lock);

	while (!list_empty(&cblist)) {
		clp = list_first_entry(&cblist, struct nfs4_client, cl_ra_cblist);
		list_del_init(&clp->cl_ra_cblist);
		nfsd4_run_cb(&clp->cl_ra->ra_cb);
	}
}
"""
UNDER = """\
static void
deleg_reaper(struct nfsd_net *nn)
{
	struct nfs4_client *clp;

	spin_lock(&nn->client_lock);
	list_for_each_entry(clp, &nn->client_lru, cl_lru) {
		if (clp->cl_state != NFSD4_ACTIVE)
			continue;
		kref_get(&clp->cl_nfsdfs.cl_ref);
		nfsd4_run_cb(&clp->cl_ra->ra_cb);
	}
	spin_unlock(&nn->client_lock);
}
"""
BREAKS = """\
static bool
nfsd_break_deleg_cb(struct file_lease *fl)
{
	struct nfs4_delegation *dp = (struct nfs4_delegation *) fl->c.flc_owner;
	struct nfs4_client *clp = dp->dl_stid.sc_client;

	dp->dl_recalled = true;
	atomic_inc(&clp->cl_delegs_in_recall);
	nfsd_break_one_deleg(dp);
	return false;
}

static int
nfsd_change_deleg_cb(struct file_lease *onlist, int arg, struct list_head *dispose)
{
	struct nfs4_delegation *dp = (struct nfs4_delegation *) onlist->c.flc_owner;
	struct nfs4_client *clp = dp->dl_stid.sc_client;

	if (arg & F_UNLCK) {
		if (dp->dl_recalled)
			atomic_dec(&clp->cl_delegs_in_recall);
		return lease_modify(onlist, arg, dispose);
	}
	return -EAGAIN;
}
"""
RAISE = "	dp->dl_recalled = true;\n	atomic_inc(&clp->cl_delegs_in_recall);\n"
ASKED = "		nfsd4_run_cb(&clp->cl_ra->ra_cb);\n"

RUNS = {
    "outside of the lock": (REAPER, Status.AFFECTED),
    "under the lock": (UNDER, Status.FIXED),
    "the lock dropped for each": (
        edit(UNDER, (ASKED, f"		spin_unlock(&nn->client_lock);\n{ASKED}		spin_lock(&nn->client_lock);\n")),
        Status.AFFECTED,
    ),
    "the lock dropped on one path": (
        edit(UNDER, (ASKED, f"		if (clp->cl_minorversion)\n			spin_unlock(&nn->client_lock);\n{ASKED}")),
        Status.AFFECTED,
    ),
    "run by another name": (REAPER.replace("nfsd4_run_cb", "nfsd4_try_run_cb"), Status.AFFECTED),
    "the client in use": (
        edit(REAPER, ("		kref_get(&clp->cl_nfsdfs.cl_ref);\n", "		atomic_inc(&clp->cl_rpc_users);\n")),
        Status.FIXED,
    ),
    "in a function that takes no lock": (
        "static void vendor_ask(struct nfs4_client *clp)\n{\n" + ASKED.replace("		", "	") + "}\n",
        Status.UNKNOWN,
    ),
    "nobody is asked": ("", Status.NOT_APPLICABLE),
}


@pytest.mark.parametrize("name", RUNS)
def test_late_run(make_nfsd: MakeNfsd, name: str) -> None:
    reaper, status = RUNS[name]
    found = look_at(make_nfsd(COUNTED, OWNER + reaper), BUG, LATE)
    assert found.status is status, found


RECALLS = {
    "at each break": (BREAKS, OWNER, Status.AFFECTED),
    "at each break, for reading alone": (BREAKS, READS, Status.LATENT),
    "at the first": (
        edit(
            BREAKS,
            (RAISE, "	if (!dp->dl_recalled) {\n		" + RAISE.replace("\n	", "\n		")[1:] + "	}\n"),
        ),
        OWNER,
        Status.FIXED,
    ),
    "at the first, with an early return": (
        edit(BREAKS, (RAISE, "	if (dp->dl_recalled)\n		return false;\n" + RAISE)),
        OWNER,
        Status.FIXED,
    ),
    "at the second": (
        edit(BREAKS, (RAISE, "	if (dp->dl_recalled)\n		atomic_inc(&clp->cl_delegs_in_recall);\n")),
        OWNER,
        Status.UNKNOWN,
    ),
    "at the first, by an exchange": (
        edit(
            BREAKS, (RAISE, "	if (!xchg(&dp->dl_recalled, true))\n		atomic_inc(&clp->cl_delegs_in_recall);\n")
        ),
        OWNER,
        Status.UNKNOWN,
    ),
    "never dropped": (edit(BREAKS, ("atomic_dec(", "pr_debug(")), OWNER, Status.UNKNOWN),
    "in a way that nobody knows": (edit(BREAKS, ("atomic_inc(&", "vendor_up(&")), OWNER, Status.UNKNOWN),
    "not counted": ("", OWNER, Status.NOT_APPLICABLE),
}


@pytest.mark.parametrize("name", RECALLS)
def test_recall_count(make_nfsd: MakeNfsd, name: str) -> None:
    breaks, owner, status = RECALLS[name]
    found = look_at(make_nfsd(COUNTED, owner + breaks), BUG, RECALL)
    assert found.status is status, found


# Who is told of a lock, with the lock that guards those that are waited for dropped, as all of upstream has it.
NOTIFIES = """\
static void
nfsd4_lm_notify(struct file_lock *fl)
{
	struct nfs4_lockowner *lo = (struct nfs4_lockowner *) fl->c.flc_owner;
	struct nfsd_net *nn = net_generic(lo->lo_owner.so_client->net, nfsd_net_id);
	struct nfsd4_blocked_lock *nbl = container_of(fl, struct nfsd4_blocked_lock, nbl_lock);
	bool queue = false;

	spin_lock(&nn->blocked_locks_lock);
	if (!list_empty(&nbl->nbl_list)) {
		list_del_init(&nbl->nbl_list);
		queue = true;
	}
	spin_unlock(&nn->blocked_locks_lock);
	if (queue)
		nfsd4_run_cb(&nbl->nbl_cb);
}
"""
TOLD = "	if (queue)\n		nfsd4_run_cb(&nbl->nbl_cb);\n"
IN_TIME = edit(NOTIFIES, (TOLD, ""), ("		queue = true;\n", "		nfsd4_run_cb(&nbl->nbl_cb);\n"))

TELLS = {
    "after the lock": (NOTIFIES, Status.AFFECTED),
    "after the lock, by another name": (edit(NOTIFIES, ("nfsd4_run_cb(", "nfsd4_try_run_cb(")), Status.AFFECTED),
    "under the lock": (IN_TIME, Status.FIXED),
    "under the lock on one path": (
        edit(
            IN_TIME,
            (
                "		nfsd4_run",
                "		if (lo)\n			spin_unlock(&nn->blocked_locks_lock);\n		nfsd4_run",
            ),
        ),
        Status.AFFECTED,
    ),
    "the lock taken again": (
        edit(NOTIFIES, (TOLD, "	spin_lock(&nn->blocked_locks_lock);\n" + TOLD)),
        Status.FIXED,
    ),
    "without a lock": (
        edit(
            NOTIFIES,
            ("	spin_lock(&nn->blocked_locks_lock);\n", ""),
            ("	spin_unlock(&nn->blocked_locks_lock);\n", ""),
        ),
        Status.UNKNOWN,
    ),
    "nobody is told": ("", Status.NOT_APPLICABLE),
}


@pytest.mark.parametrize("name", TELLS)
def test_late_notify(make_nfsd: MakeNfsd, name: str) -> None:
    notifies, status = TELLS[name]
    # The owner has one that takes no lock.
    quiet = edit(OWNER, ("	nfsd4_run_cb(&nbl->nbl_cb);\n", ""))
    found = look_at(make_nfsd(COUNTED, quiet + notifies), BUG, NOTIFY)
    assert found.status is status, found


@pytest.mark.parametrize("finding", [LATE, RECALL, NOTIFY])
def test_state_unknown_where_nothing_is_known(make_nfsd: MakeNfsd, finding: str) -> None:
    """Without a sign that this is the file in question, nothing is left out."""
    assert look_at(make_nfsd(COUNTED, "int x;\n"), BUG, finding).status is Status.UNKNOWN


RULES = ("nfsd-cb-shutdown", "nfsd-cb-shutdown-courtesy")


@pytest.mark.parametrize("rule", RULES)
def test_report_mode_is_silent_of_sound_code(make_nfsd: MakeNfsd, rule: str) -> None:
    assert coccicheck(rule, make_nfsd(edit(COUNTED, DROPS)) / CALLBACK) == []


def test_report_mode_names_faults(make_nfsd: MakeNfsd) -> None:
    said = coccicheck(RULES[0], make_nfsd(UNCOUNTED) / CALLBACK)
    assert [line.split(": ", 1)[1] for line in said] == [
        "nfsd-cb-shutdown/no-wait: affected: flush_workqueue() does not wait for callbacks that are with rpciod"
    ]
