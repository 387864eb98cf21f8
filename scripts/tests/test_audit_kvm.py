# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rule for kvm-shadow: the two versions of the feature, each prefix of the series, and what is like them.

The code of a batch comes from the series' own patches; what is around it is made up, as far as the rule looks at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import mutants
from conftest import coccicheck, lay, real_trees, tree_hash
from kmendlib.tree import manifest, series
from kmendlib.tree.audit import FindingAudit, Status, audit
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree

EVENTFD, MAIN, HOST = "virt/kvm/eventfd.c", "virt/kvm/kvm_main.c", "include/linux/kvm_host.h"
EARLY, LIST, ANSWERS = ("early-free", "shared-list", "batch-answers")
BUG = manifest.load().bug("kvm-shadow")
A, F, U, N = Status.AFFECTED, Status.FIXED, Status.UNKNOWN, Status.NOT_APPLICABLE
Files = tuple[str, str | None, str]


def batch(name: str, side: str) -> str:
    """Return BEGIN to END and what they call, as they are before (-) or after (+) a patch of the series."""
    text = (PATCHES / "kvm-shadow" / name).read_text(encoding="utf-8").partition(f"+++ b/{EVENTFD}\n")[2]
    hunks = re.split(r"^@@ .*\n", text.partition("\ndiff --git ")[0] + "\n", flags=re.MULTILINE)
    lines = [line[1:] for line in "".join(hunks[-1:]).splitlines(keepends=True) if line[0] in f" {side}"]
    whole = "".join(lines)
    return whole[whole.index("static int kvm_ioeventfd_batch_begin") : whole.rindex("int\nkvm_ioeventfd(")]


def edit(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


TOP = """\
static void ioeventfd_release(struct _ioeventfd *p)
{
	eventfd_ctx_put(p->eventfd);
	list_del(&p->list);
	kfree(p);
}

static bool ioeventfd_check_collision(struct kvm *kvm, struct _ioeventfd *p)
{
	struct _ioeventfd *_p;

	list_for_each_entry(_p, &kvm->ioeventfds, list)
		if (_p->bus_idx == p->bus_idx && _p->addr == p->addr)
			return true;

	return false;
}

static int kvm_assign_ioeventfd_idx(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_ioeventfd *args)
{
	struct _ioeventfd *p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);
	int ret;

	if (ioeventfd_check_collision(kvm, p)) {
		ret = -EEXIST;
		goto fail;
	}

	kvm_iodevice_init(&p->dev, &ioeventfd_ops);

	ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);
	if (ret < 0)
		goto fail;

	kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;
	list_add_tail(&p->list, &kvm->ioeventfds);

	return 0;

fail:
	kfree(p);
	return ret;
}

static int kvm_deassign_ioeventfd_idx(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_ioeventfd *args)
{
	struct _ioeventfd *p;
	struct kvm_io_bus *bus;
	int ret = -ENOENT;

	list_for_each_entry(p, &kvm->ioeventfds, list) {
		if (p->bus_idx != bus_idx || p->addr != args->addr)
			continue;

		if (!p->wildcard && p->datamatch != args->datamatch)
			continue;

		kvm_io_bus_unregister_dev(kvm, bus_idx, &p->dev);
		bus = kvm_get_bus(kvm, bus_idx);
		if (bus)
			bus->ioeventfd_count--;
		break;
	}

	return ret;
}

"""
REGISTER = "	ret = kvm_io_bus_register_dev(kvm, bus_idx, p->addr, p->length, &p->dev);\n"
COUNT = "	kvm_get_bus(kvm, bus_idx)->ioeventfd_count++;\n"
ROOM = f"""\
	if (kvm->ioeventfd_batch) {{
		ret = kvm_io_bus_check_room(kvm_get_bus(kvm, bus_idx));
		p->state = IOEVENTFD_ADDED;
	}} else {{
	{REGISTER}\
	}}
"""
STATES = """\
		ret = 0;
		if (p->state == IOEVENTFD_ADDED) {
			ioeventfd_release(p);
			break;
		}
		if (kvm->ioeventfd_batch) {
			p->state = IOEVENTFD_REMOVED;
			break;
		}

"""
UNREGISTER = "		kvm_io_bus_unregister_dev(kvm, bus_idx, &p->dev);\n"
OURS_TOP = edit(
    TOP,
    ("if (_p->bus_idx", "if (_p->state != IOEVENTFD_REMOVED && _p->bus_idx"),
    (REGISTER, ROOM),
    (COUNT, "	if (p->state == IOEVENTFD_LIVE)\n	" + COUNT),
    ("if (p->bus_idx !=", "if (p->state == IOEVENTFD_REMOVED || p->bus_idx !="),
    (UNREGISTER, STATES + UNREGISTER),
)
LOOK = "	if (ioeventfd_check_collision(kvm, p)) {\n		ret = -EEXIST;\n		goto fail;\n	}\n"
NOTE = """\
	if (kvm_find_shadow(kvm)) {
		es = kzalloc(sizeof(*es), GFP_KERNEL_ACCOUNT);
		es->eventfd = p;
		list_add_tail(&es->node, &ks->ioeventfds_shadow);
		return 0;
	}
"""
SHADOW_TOP = edit(TOP, (LOOK, NOTE + LOOK))

ENTRY = """\
int kvm_ioeventfd(struct kvm *kvm, struct kvm_ioeventfd *args)
{
	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_BEGIN)
		return kvm_ioeventfd_batch_begin(kvm);
	if (args->flags & KVM_IOEVENTFD_FLAG_BATCH_END)
		return kvm_ioeventfd_batch_end(kvm);
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return kvm_deassign_ioeventfd(kvm, args);

	return kvm_assign_ioeventfd(kvm, args);
}
"""
BOTH = (
    "	if (args->flags & (KVM_IOEVENTFD_FLAG_BATCH_BEGIN | KVM_IOEVENTFD_FLAG_BATCH_END))\n		return -EINVAL;\n"
)
DEASSIGN = "	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)"
ALONE = edit(ENTRY, ("flags & KVM_IOEVENTFD_FLAG_B", "flags == KVM_IOEVENTFD_FLAG_B"), (DEASSIGN, BOTH + DEASSIGN))
PLAIN_ENTRY = ENTRY[: ENTRY.index("	if (args")] + ENTRY[ENTRY.index(DEASSIGN) :]

MAIN_C = """\
static void kvm_destroy_vm(struct kvm *kvm)
{
	kvm_free_irq_routing(kvm);
	kvm_free_all(kvm);
}

static int kvm_vm_ioctl_check_extension_generic(struct kvm *kvm, long arg)
{
	switch (arg) {
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
		return 1;
	}
	return 0;
}

int kvm_io_bus_register_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr, int len, struct kvm_io_device *dev)
{
	return kvm_io_bus_check_room(kvm_get_bus(kvm, bus_idx));
}
"""
ROUTING = "	kvm_free_irq_routing(kvm);\n"
ABORTS = edit(MAIN_C, (ROUTING, ROUTING + "	kvm_ioeventfd_batch_abort(kvm);\n"))
ANY = "	case KVM_CAP_IOEVENTFD_ANY_LENGTH:\n"
CAP = (ANY, ANY + "	case KVM_CAP_IOEVENTFD_BATCH:\n")
OURS_MAIN = edit(ABORTS, CAP)
CREATE = """\
static int kvm_create_shadow(struct kvm *kvm)
{
	mutex_lock(&kvm_lock);
	list_add_tail_rcu(&ks->list, &kvm_shadow_list);
	mutex_unlock(&kvm_lock);
	return 0;
}

"""
GET = """\
static inline struct kvm_io_bus *kvm_get_bus(struct kvm *kvm, enum kvm_bus idx)
{
	return kvm->buses[idx];
}
"""
SHADOW_GET = edit(
    GET, ("{\n", "{\n	if (is_kvm_in_shadow(kvm))\n		return kvm_find_shadow(kvm)->buses_shadow[idx];\n")
)
OWN = """\
	if (is_ioeventfd) {
		ks = kvm_find_shadow(kvm);
		if (ks)
			return ks->buses_shadow[idx];
	}
"""
THREE_GET = edit(GET, ("enum kvm_bus idx)", "enum kvm_bus idx, bool is_ioeventfd)"), ("{\n", "{\n" + OWN))

KEPT = "			/* vCPUs still find it: it stays queued for END to free. */\n			continue;\n"
MENDED = (KEPT, "			ioeventfd_release(p);\n")
FIRST_1 = batch("olk-6.6-first-03-states.patch", "-")
REPAIRED_1 = batch("olk-6.6-repaired-03-states.patch", "-")
STATES_OF = batch("olk-6.6-first-03-states.patch", "+")


def test_both_series_leave_the_same_batch() -> None:
    assert batch("olk-6.6-repaired-03-states.patch", "+") == STATES_OF


OF_FIRST: Files = (SHADOW_TOP + edit(FIRST_1, MENDED) + ENTRY, MAIN_C, SHADOW_GET)
OF_REPAIRED: Files = (SHADOW_TOP + edit(REPAIRED_1, MENDED) + ENTRY, CREATE + MAIN_C, THREE_GET)
OURS = OURS_TOP + STATES_OF + ALONE
VERSIONS: dict[str, tuple[Files, tuple[Status, Status, Status]]] = {
    "plain": ((TOP + PLAIN_ENTRY, MAIN_C, GET), (N, N, N)),
    "first": (OF_FIRST, (A, A, A)),
    "first, 1": ((SHADOW_TOP + FIRST_1 + ENTRY, MAIN_C, SHADOW_GET), (F, A, A)),
    "repaired": (OF_REPAIRED, (A, A, A)),
    "repaired, 1": ((SHADOW_TOP + REPAIRED_1 + ENTRY, CREATE + MAIN_C, THREE_GET), (F, A, A)),
    "3": ((OURS_TOP + STATES_OF + ENTRY, ABORTS, GET), (F, F, A)),
    "4": ((OURS, ABORTS, GET), (F, F, A)),
    "5": ((OURS, OURS_MAIN, GET), (F, F, F)),
}
NUMBERS = {
    "first": ("D6", "D1, D2, D4", "D3 D5, D7 to D10 D11"),
    "repaired": ("D6", "D12", "D5, D7 to D10 D11"),
    "3": ("", "", "D11"),
    "4": ("", "", "D11"),
}


MakeKvm = Callable[[Files], Path]


@pytest.fixture
def make_kvm(tmp_path: Path) -> MakeKvm:
    def make(files: Files) -> Path:
        return lay(tmp_path, dict(zip((EVENTFD, MAIN, HOST), files, strict=True)), "6.6.0")

    return make


def look(root: Path) -> dict[str, FindingAudit]:
    before = tree_hash(root)
    found = audit(Tree.open(root), [BUG])
    assert tree_hash(root) == before, "the audit wrote to the tree"
    return {finding.id.partition("/")[2]: finding for finding in found.bugs[0].findings}


def statuses(root: Path) -> tuple[Status, ...]:
    return tuple(finding.status for finding in look(root).values())


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(make_kvm: MakeKvm, name: str) -> None:
    files, right = VERSIONS[name]
    found = look(make_kvm(files))
    assert tuple(finding.status for finding in found.values()) == right, found
    for finding, numbers in zip(found.values(), NUMBERS.get(name, ()), strict=False):
        said = {item.reason.partition(":")[0] for item in finding.evidence if item.line}
        assert said - {""} == set(re.findall(r"D\d+(?:, D\d+)*(?: to D\d+)?", numbers)) or not numbers


SYNC = "	if (any_changed)\n		synchronize_srcu_expedited(&kvm->srcu);\n"
MEMORY = "		if (!buses[i] && any_added)\n			goto fail;\n"
LOCK = "	mutex_lock(&kvm->slots_lock);\n"
OPEN = "	if (!kvm->ioeventfd_batch) {\n		kvm->"
FOUND = "p->state == IOEVENTFD_REMOVED || p->bus"
CLOSE = "	ioeventfd_batch_close(kvm, IOEVENTFD_REMOVED);\n"


# What is like the series' code and is not it: never sound.
CHANGED: dict[str, tuple[Files, str]] = {
    "END does not wait": ((edit(OURS, (SYNC, "")), OURS_MAIN, GET), EARLY),
    "END waits after it has freed": ((edit(OURS, (SYNC, CLOSE + SYNC)), OURS_MAIN, GET), EARLY),
    "END does not look for memory": ((edit(OURS, (MEMORY, "")), OURS_MAIN, GET), ANSWERS),
    "removed at once": (
        (edit(OURS, (STATES, "		ret = 0;\n		ioeventfd_release(p);\n")), OURS_MAIN, GET),
        EARLY,
    ),
    "BEGIN takes no lock": ((edit(OURS, (LOCK + OPEN, OPEN)), OURS_MAIN, GET), LIST),
    "VMs leave a batch behind": ((OURS, edit(MAIN_C, CAP), GET), LIST),
    "no look for duplicates": ((edit(OURS, (LOOK, "")), OURS_MAIN, GET), ANSWERS),
    "removed ones are duplicates": (
        (edit(OURS, ("if (_p->state != IOEVENTFD_REMOVED && ", "if (")), OURS_MAIN, GET),
        ANSWERS,
    ),
    "added ones are not found": (
        (edit(OURS, (FOUND, FOUND.replace("== IOEVENTFD_REMOVED", "!= IOEVENTFD_LIVE"))), OURS_MAIN, GET),
        ANSWERS,
    ),
    "both flags": ((edit(OURS, (BOTH, "")), OURS_MAIN, GET), ANSWERS),
    "a part of the old way is left": ((OURS, CREATE + OURS_MAIN, GET), LIST),
    "END has another name": ((OURS.replace("kvm_ioeventfd_batch_end", "kvm_ioeventfd_flush"), OURS_MAIN, GET), EARLY),
    "END does not parse": ((edit(OURS, (SYNC, "	%% ((\n")), OURS_MAIN, GET), EARLY),
    "no kvm_main.c": ((OURS, None, GET), LIST),
    "flags without a batch": ((TOP + ENTRY, MAIN_C, GET), ANSWERS),
    "a batch without flags": ((TOP + PLAIN_ENTRY.replace("kvm_deassign_ioeventfd(", "frob("), MAIN_C, GET), LIST),
    "kvm_ioeventfd() is not there": ((TOP, MAIN_C, GET), LIST),
    "a part of the first version": ((TOP + PLAIN_ENTRY, MAIN_C, SHADOW_GET), LIST),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_is_not_the_series_is_not_sound(make_kvm: MakeKvm, name: str) -> None:
    files, finding = CHANGED[name]
    assert look(make_kvm(files))[finding].status in (Status.AFFECTED, Status.UNKNOWN)


NOISE = (mutants.with_comments, mutants.with_blanks, mutants.with_tabs_gone, mutants.with_cr, mutants.with_other_locals)


@pytest.mark.parametrize("noise", NOISE)
def test_fixed_all_the_same(make_kvm: MakeKvm, noise: Callable[[str], str]) -> None:
    assert statuses(make_kvm((noise(OURS), noise(OURS_MAIN), noise(GET)))) == (F, F, F)


@pytest.mark.parametrize(("files", "faults"), [(OF_FIRST, 5), (OF_REPAIRED, 4), (VERSIONS["5"][0], 0)])
def test_report_mode_names_faults_alone(make_kvm: MakeKvm, files: Files, faults: int) -> None:
    """As "make coccicheck" runs it: the helpers are found without a path to them."""
    root = make_kvm(files)
    said = coccicheck("kvm-shadow", *(root / name for name in (HOST, EVENTFD, MAIN)))
    assert len(said) == faults and all(": affected: " in line for line in said)


@pytest.mark.skipif(not real_trees(), reason="KMEND_TREES names no folder with real trees")
@pytest.mark.parametrize("path", real_trees(), ids=[path.name for path in real_trees()])
def test_real_tree(path: Path, tmp_path: Path) -> None:
    """Without the feature, with the test bed, and with each fault put back: that finding, and no other, is affected."""
    tree = Tree.open(path)
    found = {finding.id.partition("/")[2]: finding for finding in audit(tree, [BUG]).bugs[0].findings}
    if {finding.status for finding in found.values()} != {N}:
        pytest.skip("the tree has the feature")
    bed = next((PATCHES / name for name in BUG.testbed if series.fits(path, PATCHES / name)), None)
    if bed is None:
        pytest.skip("no test bed fits")
    for number, finding in enumerate([None, *BUG.findings]):
        back = [PATCHES / name for name in (finding.reintroduce if finding else ())]
        back = [each for each in back if series.fits(path, each, [bed])][:1]
        assert back or finding is None, finding
        folder = tmp_path / str(number)
        series.materialize(path, [bed, *back], folder)
        said = {each.id: each.status for each in audit(Tree(folder, tree.version), [BUG]).bugs[0].findings}
        faulty = {id for id, status in said.items() if status is A}
        assert faulty == ({finding.id} if finding else set())
        assert finding or set(said.values()) == {F}
