# SPDX-License-Identifier: GPL-2.0-only
"""The audit's rules for riscv-kvm-exit: made-up files of each shape, mutants of them, and real trees where at hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import by_status, coccicheck, edit, lay, look_at
from kmendlib.tree import manifest
from kmendlib.tree.audit import Status, audit
from kmendlib.tree.tree import Tree

BUG = manifest.load().bug("riscv-kvm-exit")
MAIN = "arch/riscv/kvm/main.c"
MMU = "arch/riscv/kvm/mmu.c"
GSTAGE = "arch/riscv/kvm/gstage.c"
GENERIC = "virt/kvm/kvm_main.c"

# virt/kvm/kvm_main.c, as far as it says when virtualization is enabled.
AT_LOAD = """\
static bool enable_virt_at_load = true;

static struct kvm *kvm_create_vm(unsigned long type)
{
	if (kvm_enable_virtualization())
		return NULL;
	return kvm_arch_alloc_vm();
}

static int kvm_init_virtualization(void)
{
	if (enable_virt_at_load)
		return kvm_enable_virtualization();

	return 0;
}

int kvm_init(unsigned vcpu_size, unsigned vcpu_align, struct module *module)
{
	return kvm_init_virtualization();
}
"""
PER_VM = """\
static int hardware_enable_all(void);

static struct kvm *kvm_create_vm(unsigned long type)
{
	if (hardware_enable_all())
		return NULL;
	return kvm_arch_alloc_vm();
}

static int hardware_enable_all(void)
{
	on_each_cpu(hardware_enable_nolock, NULL, 1);
	return 0;
}

int kvm_init(unsigned vcpu_size, unsigned vcpu_align, struct module *module)
{
	return misc_register(&kvm_dev);
}
"""
PER_VM_NEW_NAMES = AT_LOAD.replace("return kvm_enable_virtualization();\n\n\treturn 0", "return 0;\n\n\treturn 0")

# The file that knows the G-stage mode.
ALWAYS = """\
static unsigned long gstage_mode __ro_after_init = (HGATP_MODE_SV39X4 << HGATP_MODE_SHIFT);

void __init kvm_riscv_gstage_mode_detect(void)
{
	if (probe())
		gstage_mode = (HGATP_MODE_SV57X4 << HGATP_MODE_SHIFT);
}
"""
OR_NONE = ALWAYS.replace("if (probe())", "gstage_mode = (HGATP_MODE_OFF << HGATP_MODE_SHIFT);\n\tif (probe())")

_HEAD = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/kvm_host.h>

int kvm_arch_enable_virtualization_cpu(void)
{
	kvm_riscv_aia_enable();
	return 0;
}

void kvm_arch_disable_virtualization_cpu(void)
{
	kvm_riscv_aia_disable();
}

"""
_SWITCH = """\
	switch (kvm_riscv_gstage_mode()) {
	case HGATP_MODE_SV39X4:
		str = "Sv39x4";
		break;
	case HGATP_MODE_SV57X4:
		str = "Sv57x4";
		break;
	default:
UNDO		return -ENODEV;
	}
	kvm_info("using %s G-stage page table format\\n", str);

	kvm_info("VMID %ld bits available\\n", kvm_riscv_gstage_vmid_bits());

"""
_TOLD = """\
	if (kvm_riscv_aia_available())
		kvm_info("AIA available with %d guest external interrupts\\n",
\t\t\t kvm_riscv_aia_nr_hgei);

"""
_INIT = """\
static int __init riscv_kvm_init(void)
{
	int rc;
	const char *str;

	if (!riscv_isa_extension_available(NULL, h))
		return -ENODEV;

	kvm_riscv_gstage_mode_detect();

	rc = kvm_riscv_aia_init();
	if (rc && rc != -ENODEV)
		return rc;

SWITCH	rc = kvm_init(sizeof(struct kvm_vcpu), 0, THIS_MODULE);
	if (rc) {
		kvm_riscv_aia_exit();
		return rc;
	}

	return 0;
}
module_init(riscv_kvm_init);

"""
_NACL = """\
	rc = kvm_riscv_nacl_init();
	if (rc && rc != -ENODEV)
		return rc;

"""
_FEATURES = """\
	if (kvm_riscv_nacl_available()) {
		rc = 0;
		if (kvm_riscv_nacl_sync_csr_available())
			rc++;
		kvm_info("using %d features\\n", rc);
	}

"""
_LATE_INIT = edit(_INIT, "\tkvm_riscv_gstage_mode_detect", _NACL + "\tkvm_riscv_gstage_mode_detect")
_FAILS = "\trc = kvm_riscv_aia_init();\n\tif (rc && rc != -ENODEV)"
_UNDONE = f"{_FAILS} {{\n\t\tkvm_riscv_nacl_exit();\n\t\treturn rc;\n\t}}\n"
_LATE_INIT = edit(_LATE_INIT, f"{_FAILS}\n\t\treturn rc;\n", _UNDONE)
_LATE_INIT = edit(_LATE_INIT, "SWITCH", f"{_FEATURES}SWITCH\tkvm_register_perf_callbacks(NULL);\n\n")
_LATE_INIT = edit(_LATE_INIT, "\t\tkvm_riscv_aia_exit();", "\t\tkvm_riscv_teardown();")
TEARDOWN = """\
static void kvm_riscv_teardown(void)
{
	kvm_riscv_aia_exit();
	kvm_riscv_nacl_exit();
	kvm_unregister_perf_callbacks();
}

"""
_EXIT = """\
static void __exit riscv_kvm_exit(void)
{
BODY}
module_exit(riscv_kvm_exit);
"""
EARLY_WRONG = "\tkvm_riscv_aia_exit();\n\n\tkvm_exit();\n"
EARLY_RIGHT = "\tkvm_exit();\n\n\tkvm_riscv_aia_exit();\n"
LATE_WRONG = "\tkvm_riscv_teardown();\n\n\tkvm_exit();\n"
LATE_RIGHT = "\tkvm_exit();\n\n\tkvm_riscv_teardown();\n"


def early(body: str = EARLY_RIGHT, undo: str = "") -> str:
    """Return main.c as of v6.4 to v6.12, with these bodies of module exit and of the switch's default."""
    return _HEAD + _INIT.replace("SWITCH", _SWITCH.replace("UNDO", undo) + _TOLD) + _EXIT.replace("BODY", body)


def late(body: str = LATE_RIGHT, undo: str = "", teardown: str = TEARDOWN) -> str:
    """Return main.c as of v6.13 to v6.17."""
    init = _LATE_INIT.replace("SWITCH", _SWITCH.replace("UNDO", undo) + _TOLD)
    return _HEAD + teardown + init + _EXIT.replace("BODY", body)


def latest() -> str:
    """Return main.c as of v6.18: the mode is looked at before the AIA is set up."""
    switch = _SWITCH.replace("UNDO", "\t\tkvm_riscv_nacl_exit();\n")
    init = edit(_LATE_INIT.replace("SWITCH", ""), "mode_detect();\n", "mode_detect();\n" + switch)
    return _HEAD + TEARDOWN + init + _EXIT.replace("BODY", LATE_RIGHT)


UNDO_EARLY = "\t\tkvm_riscv_aia_exit();\n"
UNDO_LATE = "\t\tkvm_riscv_aia_exit();\n\t\tkvm_riscv_nacl_exit();\n"

MakeRiscv = Callable[..., Path]


@pytest.fixture
def make_riscv(tmp_path: Path) -> MakeRiscv:
    """Return a function that makes a tree with riscv KVM and returns its path; a file that is None is left out."""

    def make(
        main: str | None, generic: str | None = AT_LOAD, mmu: str | None = ALWAYS, version: str = "6.14.0"
    ) -> Path:
        return lay(tmp_path / "tree", {MAIN: main, GENERIC: generic, MMU: mmu}, version)

    return make


# Exit order: wrong in each of these, so affected where virtualization is enabled at load.
WRONG = {
    "early shape": early(EARLY_WRONG),
    "later shape": late(LATE_WRONG),
    "later shape without nested acceleration": late(
        LATE_WRONG, teardown=edit(TEARDOWN, "\tkvm_riscv_nacl_exit();\n", "")
    ),
    "fix reverted by half: the AIA": late("\tkvm_riscv_aia_exit();\n\tkvm_exit();\n\tkvm_riscv_nacl_exit();\n"),
    "fix reverted by half: nested acceleration": late(
        "\tkvm_riscv_nacl_exit();\n\tkvm_exit();\n\tkvm_riscv_aia_exit();\n"
    ),
    "two levels of helpers": late(
        "\tundo_all();\n\tkvm_exit();\n",
        teardown=TEARDOWN + "static void undo_all(void)\n{\n\tkvm_riscv_teardown();\n}\n",
    ),
    "something in between": early(edit(EARLY_WRONG, "\n\n", '\n\tpr_info("bye\\n");\n')),
}
RIGHT = {
    "early shape": early(),
    "later shape": late(),
    "v6.18": latest(),
    "perf callbacks may go first": late(
        "\tkvm_unregister_perf_callbacks();\n" + LATE_RIGHT,
        teardown=edit(TEARDOWN, "\tkvm_unregister_perf_callbacks();\n", ""),
    ),
    "a goto that changes nothing": early("\tkvm_exit();\n\tgoto out;\nout:\n\tkvm_riscv_aia_exit();\n"),
}
ORDER_UNKNOWN = {
    "no kvm_exit()": early("\tkvm_riscv_aia_exit();\n"),
    "nothing is freed": early("\tkvm_exit();\n"),
    "half the fix: kvm_exit() before and after": early(EARLY_RIGHT + "\tkvm_exit();\n"),
    "a helper does it all": late(
        "\tundo_all();\n",
        teardown=TEARDOWN + "static void undo_all(void)\n{\n\tkvm_exit();\n\tkvm_riscv_teardown();\n}\n",
    ),
    "kvm_exit() on one path only": early("\tif (loaded)\n\t\tkvm_exit();\n\tkvm_riscv_aia_exit();\n"),
    "a helper of another file": early("\tkvm_riscv_undo();\n" + EARLY_RIGHT),
    "teardown is in another file": late(LATE_WRONG, teardown=""),
    "behind a macro": "#define LEAVE() do { kvm_riscv_aia_exit(); kvm_exit(); } while (0)\n" + early("\tLEAVE();\n"),
    "behind a pointer": early("\tvoid (*leave)(void) = kvm_riscv_aia_exit;\n\n\tleave();\n\tkvm_exit();\n"),
    "does not parse": early(edit(EARLY_WRONG, "\n\n", "\n\t%% ((\n")),
    "no module_init(), no module_exit()": early()
    .replace("module_init(riscv_kvm_init);", "")
    .replace("module_exit(riscv_kvm_exit);", ""),
}


@pytest.mark.parametrize(("main", "status"), by_status(AFFECTED=WRONG, FIXED=RIGHT, UNKNOWN=ORDER_UNKNOWN))
def test_order(make_riscv: MakeRiscv, main: str, status: Status) -> None:
    found = look_at(make_riscv(main), BUG, "exit-order")
    assert found.status is status, found
    assert status is not Status.AFFECTED or (found.evidence[0].file == MAIN and found.evidence[0].line)


def test_backport_of_the_cause_alone(make_riscv: MakeRiscv) -> None:
    """The trap for backporters: what was latent is affected, and the early variant mends it."""
    found = look_at(make_riscv(early(EARLY_WRONG), AT_LOAD, version="6.6.57"), BUG, "exit-order", fix=True)
    assert found.status is Status.AFFECTED
    assert found.fix == ("riscv-kvm-exit/exit-order-v6.4-v6.12.patch",)


def test_evidence_names_line_and_reason(make_riscv: MakeRiscv) -> None:
    main = late(LATE_WRONG)
    item = look_at(make_riscv(main), BUG, "exit-order").evidence[0]
    assert item.line == main.splitlines().index("static void __exit riscv_kvm_exit(void)") + 3
    assert item.reason == (
        "kvm_riscv_teardown(), and with it kvm_riscv_aia_exit() and kvm_riscv_nacl_exit(), before kvm_exit(): "
        "the CPUs still use what is freed"
    )


def no_aia(text: str) -> str:
    """Return a main.c as of before v6.4: no AIA."""
    lines = edit(text, _TOLD, "").splitlines(keepends=True)
    kept = "".join(line for line in lines if "kvm_riscv_aia" not in line)
    return edit(kept, "\tif (rc && rc != -ENODEV)\n\t\treturn rc;\n", "")


BOTH = ("exit-order", "init-leak")
EARLY, LATE = early(EARLY_WRONG), late(LATE_WRONG)
NO_PARAMETER = edit(AT_LOAD, "\tif (enable_virt_at_load)\n\t\treturn", "\treturn")
NO_WORD = (None, "", "/* kvm_create_vm() { kvm_enable_virtualization(); } */\n")
L, A, F, U, N = Status.LATENT, Status.AFFECTED, Status.FIXED, Status.UNKNOWN, Status.NOT_APPLICABLE
# A finding, its status and what its reason says, by main.c and what else differs.
OTHERS: list[tuple[str, Status, str, str | None, dict[str, str | None]]] = [
    *(
        ("exit-order", L, "enabled only while a VM exists.*b4886fab6fb6", main, {"generic": generic})
        for generic in (PER_VM, PER_VM_NEW_NAMES)
        for main in (EARLY, LATE)
    ),
    ("exit-order", A, "", EARLY, {"generic": NO_PARAMETER}),
    *(("exit-order", U, "no kvm_main.c", EARLY, {"generic": generic}) for generic in NO_WORD),
    # The right order is right whenever it is enabled.
    *(("exit-order", F, "", early(), {"generic": generic}) for generic in NO_WORD),
    ("exit-order", N, "cannot be unloaded", EARLY.split("static void __exit")[0], {}),
    ("init-leak", U, "no mmu.c or gstage.c", early(), {"mmu": None}),
    *((name, N, "no AIA support", no_aia(early()), {"generic": PER_VM, "version": "6.6.57"}) for name in BOTH),
    # What the Makefile says of the version tells nothing of the code.
    *((name, U, "the file is not there", None, {"version": each}) for name in BOTH for each in ("4.19.90", "6.12.1")),
    *((name, U, "", content, {}) for name in BOTH for content in ("", "\0\xff", "/* never closed", '"')),
]


@pytest.mark.parametrize(
    ("name", "status", "says", "main", "more"), OTHERS, ids=[f"{name} {says}" for name, _, says, *_ in OTHERS]
)
def test_others(
    make_riscv: MakeRiscv, name: str, status: Status, says: str, main: str | None, more: dict[str, str | None]
) -> None:
    found = look_at(make_riscv(main, **more), BUG, name)
    assert found.status is status, found
    assert not says or re.search(says, found.evidence[0].reason), found


@pytest.mark.parametrize("name", BOTH)
def test_no_folder_of_riscv_kvm(make_riscv: MakeRiscv, name: str) -> None:
    root = make_riscv(None, version="6.12.1")
    (root / MMU).unlink()
    (root / MMU).parent.rmdir()
    found = look_at(root, BUG, name)
    assert found.status is N
    assert found.evidence[0].reason == "no arch/riscv/kvm in this tree"


# Places in main.c where the mutants put something.
VMID = '\tkvm_info("VMID'
END = "\treturn 0;\n}\nmodule_init"
BEFORE_INIT = "static int __init riscv_kvm_init"

# Init leak: wrong in each of these, and taken where the G-stage mode can be none.
LEAKS = {
    "early shape": early(),
    "later shape": late(),
    "later shape, nested acceleration leaks": late(undo=UNDO_EARLY),
    "later shape, the AIA leaks": late(undo="\t\tkvm_riscv_nacl_exit();\n"),
    "goto an exit that undoes nothing": edit(
        early(undo="\t\tgoto out;\n"), END, "\treturn 0;\nout:\n\treturn -ENODEV;\n}\nmodule_init"
    ),
    "variable instead of a function": edit(early(), "(kvm_riscv_gstage_mode())", "(kvm_riscv_gstage_mode)"),
    "a condition instead of a switch": edit(
        early(undo=UNDO_EARLY),
        VMID,
        "\tif (kvm_riscv_gstage_mode() == HGATP_MODE_OFF)\n\t\treturn -ENODEV;\n\n" + VMID,
    ),
}
# Wrong, and taken whatever the mode is.
TAKEN = {
    "kvm_init() fails": edit(early(undo=UNDO_EARLY), "\t\tkvm_riscv_aia_exit();\n\t\treturn rc;", "\t\treturn rc;"),
    "kvm_init() fails, later shape": edit(
        late(undo=UNDO_LATE), "\t\tkvm_riscv_teardown();\n\t\treturn rc;", "\t\treturn rc;"
    ),
    "kvm_init() fails, perf callbacks stay": edit(
        late(undo=UNDO_LATE), "\t\tkvm_riscv_teardown();\n", "\t\tkvm_riscv_aia_exit();\n\t\tkvm_riscv_nacl_exit();\n"
    ),
    "kvm_init() in the return": edit(
        early(undo=UNDO_EARLY),
        "\trc = kvm_init(sizeof(struct kvm_vcpu), 0, THIS_MODULE);\n\tif (rc) {\n"
        "\t\tkvm_riscv_aia_exit();\n\t\treturn rc;\n\t}\n\n\treturn 0;\n",
        "\treturn kvm_init(sizeof(struct kvm_vcpu), 0, THIS_MODULE);\n",
    ),
    "teardown forgets one": late(undo=UNDO_LATE, teardown=edit(TEARDOWN, "\tkvm_riscv_nacl_exit();\n", "")),
    "AIA fails, nested acceleration stays": edit(
        late(undo=UNDO_LATE), "\t\tkvm_riscv_nacl_exit();\n\t\treturn rc;\n", "\t\treturn rc;\n"
    ),
    "a check after the mode": edit(early(undo=UNDO_EARLY), VMID, "\tif (!probe())\n\t\treturn -EINVAL;\n\n" + VMID),
    "a failure after kvm_init()": edit(early(undo=UNDO_EARLY), END, "\tif (probe())\n\t\treturn -EINVAL;\n\n" + END),
}
SOUND = {
    "early shape": early(undo=UNDO_EARLY),
    "later shape": late(undo=UNDO_LATE),
    "v6.18": latest(),
    "undone behind a goto": edit(
        early(undo="\t\trc = -ENODEV;\n\t\tgoto undo;\n"),
        END,
        "\treturn 0;\nundo:\n\tkvm_riscv_aia_exit();\n\treturn rc;\n}\nmodule_init",
    ),
}
INIT_UNKNOWN = {
    "undone on one path only": early(undo="\t\tif (kvm_riscv_aia_available())\n\t\t\tkvm_riscv_aia_exit();\n"),
    "helper that may not undo": edit(
        early(undo="\t\tundo();\n"),
        BEFORE_INIT,
        "static void undo(void)\n{\n\tif (loaded)\n\t\tkvm_riscv_aia_exit();\n}\n\n" + BEFORE_INIT,
    ),
    "failure of the AIA is not looked at where it is known": edit(
        early(undo=UNDO_EARLY), "kvm_riscv_aia_init();\n", "kvm_riscv_aia_init();\n\tkvm_riscv_gstage_vmid_detect();\n"
    ),
    "set up elsewhere": edit(
        early(undo=UNDO_EARLY).replace("rc = kvm_riscv_aia_init();", "rc = setup();"),
        BEFORE_INIT,
        "static int setup(void)\n{\n\treturn kvm_riscv_aia_init();\n}\n\n" + BEFORE_INIT,
    ),
    "undoes what was not set up": early(undo=UNDO_LATE),
    "undone under #ifdef": early(undo="#ifdef CONFIG_X\n\t\tkvm_riscv_aia_exit();\n#endif\n"),
    "undone by a function with another name": early(undo=UNDO_EARLY).replace(
        "kvm_riscv_aia_exit", "kvm_riscv_aia_undo"
    ),
    "does not parse": edit(early(), "\tdefault:", "\t%% ((\n\tdefault:"),
    "no module_init()": early(undo=UNDO_EARLY).replace("module_init(riscv_kvm_init);", ""),
}


@pytest.mark.parametrize("name", LEAKS)
def test_leak_that_is_taken_where_the_mode_can_be_none(make_riscv: MakeRiscv, name: str) -> None:
    root = make_riscv(LEAKS[name], mmu=OR_NONE)
    found = look_at(root, BUG, "init-leak")
    assert found.status is Status.AFFECTED, found
    assert "without undoing" in found.evidence[0].reason


@pytest.mark.parametrize("name", [name for name in LEAKS if "goto" not in name])
def test_leak_that_is_never_taken(make_riscv: MakeRiscv, name: str) -> None:
    found = look_at(make_riscv(LEAKS[name]), BUG, "init-leak")
    assert found.status is Status.LATENT, found
    assert "b8d13949a612" in found.evidence[0].reason


@pytest.mark.parametrize(("main", "status"), by_status(AFFECTED=TAKEN))
def test_leak(make_riscv: MakeRiscv, main: str, status: Status) -> None:
    assert look_at(make_riscv(main), BUG, "init-leak").status is status


@pytest.mark.parametrize(("main", "status"), by_status(FIXED=SOUND, UNKNOWN=INIT_UNKNOWN))
def test_leak_where_the_mode_can_be_none(make_riscv: MakeRiscv, main: str, status: Status) -> None:
    found = look_at(make_riscv(main, mmu=OR_NONE), BUG, "init-leak")
    assert found.status is status, found


def test_mode_in_a_file_of_its_own(make_riscv: MakeRiscv) -> None:
    root = make_riscv(late(), mmu="/* it was here */\n")
    mode = "unsigned long kvm_riscv_gstage_mode __ro_after_init = HGATP_MODE_SV39X4;\n"
    (root / GSTAGE).write_text(mode, encoding="utf-8")
    assert look_at(root, BUG, "init-leak").status is Status.LATENT
    (root / GSTAGE).write_text(
        mode + "void detect(void)\n{\n\tkvm_riscv_gstage_mode = HGATP_MODE_OFF;\n}\n", encoding="utf-8"
    )
    assert look_at(root, BUG, "init-leak").status is Status.AFFECTED
    (root / GSTAGE).write_text(edit(mode, "HGATP_MODE_SV39X4", "HGATP_MODE_OFF"), encoding="utf-8")
    assert look_at(root, BUG, "init-leak").status is Status.AFFECTED
    (root / GSTAGE).write_text(edit(mode, "HGATP_MODE_SV39X4", "probe()"), encoding="utf-8")
    assert look_at(root, BUG, "init-leak").status is Status.UNKNOWN


# Each variant mends the shape that it is for, and the audit knows which is which.
@pytest.mark.parametrize(
    ("main", "name", "fix"),
    [
        (early(EARLY_WRONG), "exit-order", "exit-order-v6.4-v6.12"),
        (late(LATE_WRONG), "exit-order", "exit-order-v6.13-v6.14"),
        (early(), "init-leak", "init-leak-v6.4-v6.12"),
        (late(), "init-leak", "init-leak-v6.13-v6.17"),
    ],
    ids=["early order", "later order", "early leak", "later leak"],
)
def test_variant(make_riscv: MakeRiscv, main: str, name: str, fix: str) -> None:
    assert look_at(make_riscv(main, mmu=OR_NONE), BUG, name, fix=True).fix == (f"riscv-kvm-exit/{fix}.patch",)


def test_both_findings_are_mended_together(make_riscv: MakeRiscv) -> None:
    for main in (early(EARLY_WRONG), late(LATE_WRONG)):
        found = audit(Tree.open(make_riscv(main, mmu=OR_NONE)), [BUG])
        assert len(found.patches) == 2
        assert not any(finding.unfit for finding in found.bugs[0].findings)


# As "make coccicheck" runs them, on the file alone.
@pytest.mark.parametrize(
    ("main", "rule", "said"),
    [
        (early(EARLY_WRONG), "riscv-kvm-exit", 1),
        (late(LATE_WRONG), "riscv-kvm-exit", 1),
        (early(), "riscv-kvm-exit", 0),
        (no_aia(early()), "riscv-kvm-exit", 0),
        (early(), "riscv-kvm-exit-init", 1),
        (late(), "riscv-kvm-exit-init", 1),
        (latest(), "riscv-kvm-exit-init", 0),
        (no_aia(early()), "riscv-kvm-exit-init", 0),
    ],
    ids=["early", "later", "right", "no AIA", "early leak", "later leak", "v6.18", "no AIA, no leak"],
)
def test_report_mode_names_faults_alone(make_riscv: MakeRiscv, main: str, rule: str, said: int) -> None:
    lines = coccicheck(rule, make_riscv(main) / MAIN)
    assert len(lines) == said
    assert all(": affected: " in line for line in lines)
