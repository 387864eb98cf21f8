# SPDX-License-Identifier: GPL-2.0-only
"""What the tests share: the package's path, made-up kernel trees, and the hash of a tree.

Real trees are used where they are at hand:
    KMEND_TREES       a folder with trees, each named by its version, as in 4.19.90 or 6.12
    KMEND_CHECKPATCH  the path of a kernel tree's scripts/checkpatch.pl
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Started with nohup(1) or in a shell's background some signals are ignored, by all children too, and kmend respects it.
for _number in signal.valid_signals() - {signal.SIGPIPE}:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

from kmendlib.host import setup  # noqa: E402

_LACKING = [
    need.file for need in setup.needs() if need.file.startswith("python:") and not need.extra and not need.met()
]
if _LACKING:
    # As that of a virtual environment, which comes first in the path, may be.
    _names = ", ".join(name.partition(":")[2] for name in _LACKING)
    print(f"{sys.executable} has no {_names}: take /usr/bin/python3, or run scripts/kmend setup first", file=sys.stderr)
    sys.exit(2)

from kmendlib.proof.plan import Facts, Plan, Request, plan, variants  # noqa: E402
from kmendlib.tree import arches, bases  # noqa: E402
from kmendlib.tree.audit import Audit, BugAudit, FindingAudit, Status, audit  # noqa: E402
from kmendlib.tree.manifest import RULES, Bug  # noqa: E402
from kmendlib.tree.tree import Tree, version_key  # noqa: E402

# drivers/pci/access.c as far as the rule and the patches look at it. The functions under test have the shape that
# the names say; the rest is made up.
_TOP = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/pci.h>
#include <linux/wait.h>

DEFINE_RAW_SPINLOCK(pci_lock);

struct pci_ops *pci_bus_set_ops(struct pci_bus *bus, struct pci_ops *ops)
{
	return bus->ops;
}
EXPORT_SYMBOL(pci_bus_set_ops);

/*
 * A bit per device says that it is blocked, and one queue holds all who wait.
 */
static DECLARE_WAIT_QUEUE_HEAD(pci_cfg_wait);

"""

UNLOCKED = """\
static noinline void pci_wait_cfg(struct pci_dev *dev)
{
	DECLARE_WAITQUEUE(wait, current);

	__add_wait_queue(&pci_cfg_wait, &wait);
	do {
		set_current_state(TASK_UNINTERRUPTIBLE);
		raw_spin_unlock_irq(&pci_lock);
		schedule();
		raw_spin_lock_irq(&pci_lock);
	} while (dev->block_cfg_access);
	__remove_wait_queue(&pci_cfg_wait, &wait);
}

/* Returns 0 on success, negative values indicate error. */
"""

WAIT_EVENT = """\
static noinline void pci_wait_cfg(struct pci_dev *dev)
	__must_hold(&pci_lock)
{
	do {
		raw_spin_unlock_irq(&pci_lock);
		wait_event(pci_cfg_wait, !dev->block_cfg_access);
		raw_spin_lock_irq(&pci_lock);
	} while (dev->block_cfg_access);
}

/* Returns 0 on success, negative values indicate error. */
"""

_MIDDLE = """\
#define PCI_USER_READ_CONFIG(size, type)				\\
int pci_user_read_config_##size						\\
	(struct pci_dev *dev, int pos, type *val)			\\
{									\\
	raw_spin_lock_irq(&pci_lock);					\\
	if (unlikely(dev->block_cfg_access))				\\
		pci_wait_cfg(dev);					\\
	raw_spin_unlock_irq(&pci_lock);					\\
	return 0;							\\
}									\\
EXPORT_SYMBOL_GPL(pci_user_read_config_##size);

PCI_USER_READ_CONFIG(byte, u8)

void pci_cfg_access_lock(struct pci_dev *dev)
{
	raw_spin_lock_irq(&pci_lock);
	if (dev->block_cfg_access)
		pci_wait_cfg(dev);
	dev->block_cfg_access = 1;
	raw_spin_unlock_irq(&pci_lock);
}
EXPORT_SYMBOL_GPL(pci_cfg_access_lock);

"""

WAKE_OUTSIDE = """\
void pci_cfg_access_unlock(struct pci_dev *dev)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&pci_lock, flags);
	dev->block_cfg_access = 0;
	raw_spin_unlock_irqrestore(&pci_lock, flags);

	wake_up_all(&pci_cfg_wait);
}
EXPORT_SYMBOL_GPL(pci_cfg_access_unlock);

"""

WAKE_INSIDE = """\
void pci_cfg_access_unlock(struct pci_dev *dev)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&pci_lock, flags);
	dev->block_cfg_access = 0;
	wake_up_all(&pci_cfg_wait);
	raw_spin_unlock_irqrestore(&pci_lock, flags);
}
EXPORT_SYMBOL_GPL(pci_cfg_access_unlock);

"""

_END = """\
static inline int pcie_cap_version(const struct pci_dev *dev)
{
	return pcie_caps_reg(dev) & PCI_EXP_FLAGS_VERS;
}
"""

_KCONFIG = """\
config PCI_DEBUG
	bool "PCI Debugging"
	help
	  Say Y here to see more messages.

	  When in doubt, say N.

config PCI_REALLOC_ENABLE_AUTO
	bool "Enable PCI resource re-allocation detection"
	depends on PCI_IOV
"""

ACCESS = "drivers/pci/access.c"


def access_c(wait: str = UNLOCKED, wake: str = WAKE_OUTSIDE) -> str:
    """Return a made-up access.c with the given pci_wait_cfg() and pci_cfg_access_unlock()."""
    return _TOP + wait + _MIDDLE + wake + _END


MakeTree = Callable[..., Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Return a function that makes a small kernel tree and returns its path."""

    def make(
        access: str | None = None,
        version: str | None = "4.19.90",
        extra: str = "",
        name: str = "tree",
        kunit: bool = False,
    ) -> Path:
        root = tmp_path / name
        # A KUnit that is new enough for the suites is not of 4.19.
        version = "6.6.80" if kunit and version == "4.19.90" else version
        (root / "drivers/pci").mkdir(parents=True)
        (root / "tools/testing/selftests").mkdir(parents=True)
        (root / ACCESS).write_text(access_c() if access is None else access, encoding="utf-8")
        (root / ACCESS).chmod(0o640)
        (root / "drivers/pci/Kconfig").write_text(_KCONFIG, encoding="utf-8")
        (root / "drivers/pci/probe.sh").write_text("#!/bin/sh\n", encoding="utf-8")
        (root / "drivers/pci/probe.sh").chmod(0o755)
        if kunit:
            (root / "include/kunit").mkdir(parents=True)
            (root / "include/kunit/test.h").touch()
        if version:
            major, patchlevel, sublevel = version.split(".")
            (root / "Makefile").write_text(
                "# SPDX-License-Identifier: GPL-2.0\n"
                f"VERSION = {major}\nPATCHLEVEL = {patchlevel}\nSUBLEVEL = {sublevel}\nEXTRAVERSION ={extra}\n"
                'NAME = "A Name"\n',
                encoding="utf-8",
            )
        return root

    return make


def tree_hash(root: Path) -> str:
    """Return one hash of every file, folder, link and mode below `root`, .git's objects and index included."""
    total = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            status = path.lstat()
            total.update(f"{path.relative_to(root)}\0{status.st_mode:o}\0{status.st_uid}\0{status.st_gid}\0".encode())
            if path.is_symlink():
                total.update(os.readlink(path).encode())
            elif path.is_file():
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def edit(text: str, old: str, new: str) -> str:
    """Replace what must be there."""
    assert old in text
    return text.replace(old, new)


def git(root: Path, *words: str) -> str:
    """Run git in a folder, as a person without settings of this machine, and return what it prints."""
    environment = os.environ | {"HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=A Person", "-c", "user.email=person@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *who, "-C", str(root), *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def commit_all(root: Path) -> None:
    """Make a repository of a folder, with one commit."""
    for words in ("init -q", "add -A", "commit -qm tree"):
        git(root, *words.split())


def tools(monkeypatch: pytest.MonkeyPatch, folder: Path, **texts: str) -> None:
    """Put shell scripts into PATH; an underscore in a name stands for a dash."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def real_trees(variable: str = "KMEND_TREES") -> list[Path]:
    """Return the real trees in KMEND_TREES, or those of which there is only a part in KMEND_PARTS."""
    folder = os.environ.get(variable)
    return sorted(path for path in Path(folder).iterdir() if path.is_dir()) if folder else []


def parser_tree() -> Path:
    """Return the newest real tree that has a KTAP parser."""
    trees = [tree for tree in real_trees() if (tree / "tools/testing/kunit/kunit_printer.py").exists()]
    if not trees:
        pytest.skip("no kernel tree with a KTAP parser at hand: set KMEND_TREES")
    return max(trees, key=lambda tree: version_key(Tree.open(tree).version or "0"))


def look_at(root: Path, bug: Bug, name: str, *, fix: bool = False) -> FindingAudit:
    """Audit a tree, which must not change, for one finding.

    Args:
        root: the tree.
        bug: the bug.
        name: the finding, without the bug's name.
        fix: also find the fix variant that mends it, which takes seconds.
    """
    (finding,) = (finding for finding in bug.findings if finding.id == f"{bug.id}/{name}")
    before = tree_hash(root)
    found = audit(Tree.open(root), [replace(bug, findings=(finding if fix else replace(finding, fix=()),))])
    assert tree_hash(root) == before, "the audit wrote to the tree"
    return found.bugs[0].findings[0]


def lay(root: Path, files: Mapping[str, str | None], version: str) -> Path:
    """Make a part of a tree, and return its path; of a file that is None the folder alone."""
    numbers = zip(("VERSION", "PATCHLEVEL", "SUBLEVEL"), version.split("."), strict=True)
    for name, text in {**files, "Makefile": "".join(f"{name} = {number}\n" for name, number in numbers)}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (root / name).write_text(text, encoding="utf-8")
    return root


def by_status(**tables: Mapping[str, Any]) -> list[Any]:
    """Return parameters of a test: each value of some tables, with the status that the table is named after."""
    rows = ((Status[status], name, value) for status, table in tables.items() for name, value in table.items())
    return [pytest.param(value, status, id=f"{status}: {name}") for status, name, value in rows]


def coccicheck(rule: str, *words: str | Path, mode: str = "report") -> list[str]:
    """Return what a rule prints as "make coccicheck" runs it, on files or a folder."""
    command = ["spatch", "-D", mode, "--no-show-diff", "--very-quiet", "--no-includes", "--cocci-file"]
    done = subprocess.run([*command, RULES / f"{rule}.cocci", *words], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def audited(bug: Bug, statuses: Mapping[str, Status] | Status) -> BugAudit:
    """Return what the audit might say of a bug: one status for all findings, or by their ids, with the newest fix."""
    findings = []
    for finding in bug.findings:
        status = statuses if isinstance(statuses, Status) else statuses[finding.id]
        fix = finding.fix[0] if status in (Status.AFFECTED, Status.LATENT) else ()
        findings.append(FindingAudit(finding.id, status, (), fix))
    return BugAudit(bug, tuple(findings))


def planned(
    bugs: Sequence[Bug],
    names: Sequence[str],
    statuses: Mapping[str, Status] | Status = Status.AFFECTED,
    base: str = bases.DEFAULT,
    repeat: int = 1,
    kunit: str = "",
    forced: bool = True,
    seed: int = 1,
    **changes: Any,
) -> Plan:
    """Plan for a made-up tree that has everything, and that every patch fits; `changes` are other `Facts`."""
    line = bases.get(base)
    said = [audited(bug, statuses) for bug in bugs]
    known = {name: line.adapt(arches.load(name)) for name in names if line.has(name)}
    there = frozenset(bug.needs.format(arch=arch.folder) for bug in bugs for arch in known.values())
    facts = Facts("6.12.1", known, frozenset(p for each in said for choice in variants(each) for p in choice), there)
    request = Request(None, base, tuple(bugs), tuple(names), repeat, kunit=kunit, forced=forced, seed=seed)
    return plan(Audit(Tree(Path("/tree"), "6.12.1"), tuple(said)), request, line, replace(facts, **changes))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes a minute or more, so that no worker is left with it alone."""
    long = ("test_noticed", "test_options_are_there", "test_series_prefix_builds")
    items.sort(key=lambda item: not item.name.startswith(long))
