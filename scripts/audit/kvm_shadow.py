# SPDX-License-Identifier: GPL-2.0-only
"""What kvm-shadow.cocci makes of what it finds."""

from __future__ import annotations

from kmend_rule import Position, Report, function_of

EARLY, LIST, ANSWERS = FINDINGS = ("kvm-shadow/early-free", "kvm-shadow/shared-list", "kvm-shadow/batch-answers")

# What a sign of a fault means in a function.
FAULTS = {
    "kvm_ioeventfd_batch_begin": (LIST, "D1, D2, D4: batches of all VMs are on one list, under each VM's own lock"),
    "kvm_create_shadow": (LIST, "D12: all VMs are on one list, which every access to a bus walks"),
    "kvm_assign_ioeventfd_idx": (ANSWERS, "D5, D7 to D10: a batch's changes are noted unchecked, and made at its end"),
    "kvm_get_bus": (ANSWERS, "D3: while a batch is open no device gets its real bus"),
    "kvm_ioeventfd": (ANSWERS, "D11: a flag of a batch is obeyed together with any other flag"),
    "kvm_handle_ioeventfds_shadow": (EARLY, "D6: what a batch removed is freed before its grace period"),
    "kvm_ioeventfd_batch_end": (EARLY, "D6: what a batch removed is freed before the new buses are published"),
}
NO_CAP = "D11: no KVM_CAP tells that there are batches"
GOOD = {
    EARLY: "what a batch removes is freed after its grace period",
    LIST: "the state of a batch is in struct kvm, under slots_lock",
    ANSWERS: "a batch answers each call as it is answered without one",
}


class Rule:
    """What was found.

    flags: uses of the flags of a batch, with their names.
    old: uses of what the series takes out.
    strange: what kvm_ioeventfd() calls besides.
    signs: the signs of faults.
    good: the findings whose code is that of the series.
    cap: there is a capability.
    """

    def __init__(self) -> None:
        self.out = Report()
        self.flags: list[tuple[Position, str]] = []
        self.old: list[tuple[Position, str]] = []
        self.strange: list[str] = []
        self.signs: list[Position] = []
        self.good: set[str] = set()
        self.cap = False

    def judge(self) -> None:
        """Say it, once for all files."""
        at = self.out.anchors.get("kvm_ioeventfd")
        for finding in FINDINGS:
            for p, _ in self.flags:
                self.out.say(p, finding, "seen", "a flag of a batch")
            if at and any(p[0].file == at[0].file for p, _ in self.flags):
                self._judge_batches(finding, at)
            elif at:
                self._judge_none(finding, at)

    def _judge_batches(self, finding: str, at: Position) -> None:
        signs = [(p, *FAULTS[function_of(p)]) for p in self.signs if function_of(p) in FAULTS]
        bad = [(p, reason) for p, of, reason in signs if of == finding]
        whole = "kvm_io_bus_register_dev" in self.out.anchors
        if finding == ANSWERS and finding in self.good and not self.cap and whole:
            bad.append((at, NO_CAP))
        for p, reason in bad:
            self.out.say(p, finding, "affected", reason)
        # With the second patch of the series nothing is left of the old way.
        if not bad and self.old and finding != EARLY:
            self.out.say(self.old[0][0], finding, "unknown", f"{self.old[0][1]} in a version that no rule knows")
        elif not bad and finding in self.good:
            self.out.say_all(finding, "fixed", GOOD[finding])
        elif not bad:
            self.out.say(at, finding, "unknown", "batches in a version that no rule knows")

    def _judge_none(self, finding: str, at: Position) -> None:
        if self.strange:
            self.out.say(at, finding, "unknown", f"kvm_ioeventfd() calls {self.strange[0]}(), which no rule knows")
        elif self.flags or self.old:
            p, _ = (self.flags + self.old)[0]
            self.out.say(p, finding, "unknown", "a part of batches, but kvm_ioeventfd() has no flags for them")
        else:
            self.out.say_all(finding, "not-applicable", "no batches of ioeventfd changes")
