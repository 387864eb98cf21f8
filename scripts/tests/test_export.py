# SPDX-License-Identifier: GPL-2.0-only
"""Export: the two forms of mail, whether git am takes them, and input that it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from conftest import ACCESS, UNLOCKED, MakeTree, access_c, commit_all, git, real_trees
from kmendlib.host.errors import BadInput, NothingToDo
from kmendlib.tree import export, manifest, series
from kmendlib.tree.audit import audit
from kmendlib.tree.manifest import PATCHES
from kmendlib.tree.tree import Tree

BUGS = manifest.load().bugs
FIX = PATCHES / "pci-cfg-wait/v3.4-v5.8.patch"
OWN = PATCHES / "nfsd-cb-shutdown/inflight-leak-v6.12.patch"
PERSON = "A Person <person@example.org>"
ISSUE = "https://example.org/issues/1"
SERIES = sorted(path.name for path in (PATCHES / "series").iterdir())
FORMATS = {
    "stable": export.Options("stable", PERSON),
    "mail": export.Options("mail", PERSON),
    "openeuler": export.Options("openeuler", PERSON, ISSUE, "CVE-2020-1"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_git_am_takes_it(make_tree: MakeTree, tmp_path: Path, form: str) -> None:
    tree = make_tree(access_c(UNLOCKED))
    commit_all(tree)
    (path,), _ = export.export([FIX], FORMATS[form], tmp_path / "out")
    git(tree, "am", "-q", str(path))
    assert "wait_event(pci_cfg_wait" in (tree / ACCESS).read_text(encoding="utf-8")
    # A backport is by who made the change, and signed off by who brings it.
    assert git(tree, "log", "-1", "--format=%an <%ae>").strip() == "Bjorn Helgaas <bhelgaas@google.com>"
    assert git(tree, "log", "-1", "--format=%s").strip() == "PCI: Fix pci_cfg_wait queue locking problem"
    message = git(tree, "log", "-1", "--format=%B")
    assert message.rstrip().endswith(f"\nSigned-off-by: {PERSON}")
    # git reads the last paragraph as trailers, and there are upstream's, word by word.
    trailers = git(tree, "log", "-1", "--format=%(trailers)")
    upstream = next(item for bug in BUGS for item in bug.upstream if item.version == "v5.9-rc1")
    assert [line for line in trailers.splitlines() if line in upstream.trailers] == list(upstream.trailers)
    lines = message.splitlines()
    assert lines[2:4] == ([f"commit {upstream.commit} upstream.", ""] if form != "openeuler" else lines[2:4])
    assert ("Assisted-by: <<< " in message) is (form != "openeuler")


@pytest.mark.parametrize("form", FORMATS)
def test_fix_of_our_own_claims_no_upstream_commit(tmp_path: Path, form: str) -> None:
    """It is the submitter's, and its log says what upstream has in its place."""
    ((path,), _), text = export.export([OWN], FORMATS[form], tmp_path / "out"), ""
    text = path.read_text(encoding="utf-8")
    assert f"\nFrom: {PERSON}\n" in text and text.count("Signed-off-by: ") == 1
    assert not re.search(r"^commit [0-9a-f]{40}( upstream\.)?$", text, re.MULTILINE)
    assert "\nNo backport: commit 1054e8ffc5c492f341bdf1888b882f1d163dd3d8 (" in text
    assert "mainline inclusion" not in text and "Jeff Layton" not in text
    assert (f"\n{export.STABLE}\n" in text) is (form == "stable")


def test_fix_asks_for_stable_where_it_is_needed(tmp_path: Path) -> None:
    """A patch that is named alone may be latent in every tree."""
    options = export.Options("stable", PERSON, needed=False)
    (path,), _ = export.export([OWN], options, tmp_path / "out")
    assert export.STABLE not in path.read_text(encoding="utf-8")


FIXES = sorted({name for bug in BUGS for each in bug.findings for name in each.fix_patches})


@pytest.mark.parametrize("name", FIXES)
def test_origin_of_every_fix(tmp_path: Path, name: str) -> None:
    """It is a backport of a commit, or says that it is none, or its bug has no upstream fix."""
    (bug,) = (bug for bug in BUGS if name in bug.patches)
    fixes = [item for item in bug.upstream if item.role == "fix"]
    log = (PATCHES / name).read_text(encoding="utf-8").partition("\n\n")[2]
    first = " ".join(log.partition("\n\n")[0].split())
    said = re.match(r'(No backport: )?commit ([0-9a-f]{12,40}) \("(.+?)"\) (upstream|mends this upstream)', first)
    assert bool(said) is bool(fixes and not first.startswith("No backport: upstream has no fix for this up to v"))
    if not said:
        return
    assert bool(said[1]) is (said[4] != "upstream")
    (path,), blanks = export.export([PATCHES / name], export.Options("mail", PERSON), tmp_path / "out")
    text = path.read_text(encoding="utf-8")
    known = next((item for item in fixes if item.commit == said[2]), None)
    if said[1]:
        assert known and known.subject == said[3] and text.count("Signed-off-by: ") == 1
    elif known:
        assert known.subject == said[3] and known.author
        assert f"\n\ncommit {known.commit} upstream.\n\n" in text and f"\nFrom: {known.author}\n" in text
        assert "\n".join(known.trailers) in text
        unread = any(f"the sign-offs of commit {said[2][:12]}" in blank for blank in blanks)
        assert unread is not bool(known.trailers), blanks
    else:
        # Nobody here could read it: the blanks say so.
        assert any(f"the 40 digits of commit {said[2]}" in blank for blank in blanks), blanks
        assert any(f"the sign-offs of commit {said[2]}" in blank for blank in blanks), blanks


def test_adapted_is_said(tmp_path: Path) -> None:
    for name, says in {
        "pci-cfg-wait/v3.4-v5.8": "Upstream's, line by line.",
        "riscv-kvm-exit/exit-order-v6.13-v6.14": "Upstream's, line by line.",
        "riscv-kvm-exit/exit-order-v6.4-v6.12": "Adapted, as the log says.",
        "nfsd-cb-shutdown/courtesy-hang-v5.10-v6.13": "Adapted: the comment is another one.",
    }.items():
        (path,), _ = export.export([PATCHES / f"{name}.patch"], FORMATS["mail"], tmp_path / name.replace("/", "-"))
        assert f"\n[ {says} The log is the backport's own. ]\n" in path.read_text(encoding="utf-8")
    ported = tmp_path / "ported.patch"
    ported.write_text(
        FIX.read_text(encoding="utf-8").replace("\nFixes: ", "\n[ported from a/b to 4.4: x]\n\nFixes: "),
        encoding="utf-8",
    )
    (path,), _ = export.export([ported], FORMATS["mail"], tmp_path / "of-ported")
    assert "\n[ Adapted, as the log says. The log is the backport's own. ]\n" in path.read_text(encoding="utf-8")


def test_cover_letter(tmp_path: Path) -> None:
    """It has all nine points, what shows each fault, and no answer that kmend cannot know."""
    options = export.Options("stable", title="Fixes for 6.12.117", ran=("6.12.117: PROVED",))
    export.export([OWN], options, tmp_path / "out")
    text = (tmp_path / "out/cover-letter.txt").read_text(encoding="utf-8")
    assert text.startswith("Subject: [PATCH 0/1] Fixes for 6.12.117\n")
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == list("123456789")
    assert "nfsd_cb_shutdown_test_restart_meets_second_run" in text and "  - 6.12.117: PROVED\n" in text
    assert "a fix of its own, not upstream's" in text and "<<< nobody has signed off: you do >>>" in text
    assert "$" not in text
    export.export([OWN], export.Options("stable", PERSON), tmp_path / "more")
    text = (tmp_path / "more/cover-letter.txt").read_text(encoding="utf-8")
    assert f"Signed off by {PERSON}." in text and "<<< nothing was run for this letter" in text


@pytest.mark.parametrize("real", real_trees() or [None], ids=lambda path: path.name if path else "none at hand")
@pytest.mark.parametrize("form", FORMATS)
def test_git_am_takes_what_a_real_tree_needs(real: Path | None, form: str, tmp_path: Path) -> None:
    if not real:
        pytest.skip("no real tree here: set KMEND_TREES")
    said = audit(Tree.open(real), BUGS)
    if not said.patches:
        with pytest.raises(NothingToDo):
            export.of_tree(said)
        return
    mails, _ = export.export(export.of_tree(said), FORMATS[form], tmp_path / "out")
    tree = tmp_path / "tree"
    for name in {name for patch in said.patches for name in series.touched_files(PATCHES / patch)}:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real / name, tree / name)
    commit_all(tree)
    git(tree, "am", "-q", *map(str, mails))
    assert git(tree, "log", "--format=%s").count("\n") == len(mails) + 1


def test_header_of_openeuler(tmp_path: Path) -> None:
    (path,), _ = export.export([FIX], FORMATS["openeuler"], tmp_path / "out")
    commit = "2a7e32d0547f41c5ce244f84cf5d6ca7fccee7eb"
    body = path.read_text(encoding="utf-8").split("\n\n", 1)[1].splitlines()
    assert body[:6] == [
        "mainline inclusion",
        "from mainline-v5.9-rc1",
        f"commit {commit}",
        "category: bugfix",
        f"bugzilla: {ISSUE}",
        "CVE: CVE-2020-1",
    ]
    assert body[6:11] == ["", f"Reference: https://git.kernel.org/torvalds/c/{commit[:12]}", "", "-" * 32, ""]
    assert body[11].startswith("A task that accesses the config space")


@pytest.mark.parametrize("name", ["riscv-kvm-exit/init-leak-v6.4-v6.12", "nfsd-cb-shutdown/inflight-leak-v6.6"])
def test_fix_of_our_own_is_no_inclusion_of_mainline(tmp_path: Path, name: str) -> None:
    (path,), _ = export.export([PATCHES / f"{name}.patch"], FORMATS["openeuler"], tmp_path / "out")
    body = path.read_text(encoding="utf-8").split("\n\n", 1)[1].splitlines()
    assert body[:2] == ["openEuler inclusion", "category: bugfix"]
    assert "Reference: NA" in body


def test_cve_of_the_upstream_commit(tmp_path: Path) -> None:
    name = PATCHES / "nfsd-cb-shutdown/courtesy-hang-v5.10-v6.13.patch"
    (path,), _ = export.export([name], export.Options("openeuler"), tmp_path / "out")
    assert "\nCVE: CVE-2025-21795\n" in path.read_text(encoding="utf-8")


# What CSAF 2.0 asks of a vulnerability, as far as one is written here, and its test 6.1.29: a remediation has products.
TEXT = {"type": "string", "minLength": 1}
PRODUCTS = {"type": "array", "minItems": 1, "uniqueItems": True, "items": TEXT}


def each_has(**properties: dict[str, object]) -> dict[str, object]:
    """Return the schema of a list of objects that have just these."""
    item = {"type": "object", "required": [*properties], "properties": properties, "additionalProperties": False}
    return {"type": "array", "minItems": 1, "uniqueItems": True, "items": item}


CSAF = each_has(
    cve={"type": "string", "pattern": "^CVE-[0-9]{4}-[0-9]{4,}$"},
    title=TEXT,
    notes=each_has(
        category={"enum": ["description", "details", "faq", "general", "legal_disclaimer", "other", "summary"]},
        text=TEXT,
    ),
    references=each_has(summary=TEXT, url={"type": "string", "pattern": r"^https://\S+$"}),
    product_status={"type": "object", "minProperties": 1, "properties": {"fixed": PRODUCTS}},
    remediations=each_has(
        category={"enum": ["mitigation", "no_fix_planned", "none_available", "vendor_fix", "workaround"]},
        details=TEXT,
        product_ids=PRODUCTS,
    ),
)
CVES = {
    "nfsd-cb-shutdown/courtesy-hang-v5.10-v6.13.patch": "CVE-2025-21795",
    "memcg-uncharge/v6.12-unqueue-first.patch": "CVE-2024-53079",
}


@pytest.mark.parametrize("form", ["openeuler", "mail"])
def test_advisory_of_what_has_a_cve(tmp_path: Path, form: str) -> None:
    patches = [OWN, *(PATCHES / name for name in CVES), FIX]
    mails, blanks = export.export(patches, FORMATS[form], tmp_path / "out")
    written = json.loads((tmp_path / "out/csaf.json").read_text(encoding="utf-8"))
    assert [*written] == ["vulnerabilities"]
    jsonschema.Draft202012Validator(CSAF).validate(written["vulnerabilities"])
    assert [each["cve"] for each in written["vulnerabilities"]] == [*CVES.values()]
    for name, mail, said in zip(CVES, mails[1:3], written["vulnerabilities"], strict=True):
        (fix,) = (item for bug in BUGS for item in bug.upstream if item.cve == said["cve"])
        (fault,) = (each.title for bug in BUGS for each in bug.findings if name in each.fix_patches)
        assert said["title"] == fix.subject and said["notes"][0]["text"] == fault
        assert said["references"][1]["url"].rpartition("/")[2] == fix.commit[:12]
        assert said["remediations"][0]["details"] == f"A kernel with {mail.name}"
        # Whose product it is kmend does not know.
        assert said["product_status"]["fixed"] == said["remediations"][0]["product_ids"] == blanks[-1:]


def test_two_patches_of_one_cve_are_one_vulnerability(tmp_path: Path) -> None:
    (name, cve), *_ = CVES.items()
    export.export([PATCHES / name, PATCHES / name], FORMATS["mail"], tmp_path / "out")
    (said,) = json.loads((tmp_path / "out/csaf.json").read_text(encoding="utf-8"))["vulnerabilities"]
    assert said["cve"] == cve and said["remediations"][0]["details"].count(".patch") == 2


@pytest.mark.parametrize(("form", "name"), [("openeuler", OWN), ("mail", FIX), ("stable", PATCHES / [*CVES][0])])
def test_no_advisory_without_a_cve_or_for_a_list(tmp_path: Path, form: str, name: Path) -> None:
    export.export([name], FORMATS[form], tmp_path / "out")
    assert not (tmp_path / "out/csaf.json").exists()


@pytest.mark.parametrize("base", SERIES)
@pytest.mark.parametrize("form", FORMATS)
def test_every_series_can_be_exported(tmp_path: Path, base: str, form: str) -> None:
    patches, _ = export.of_base(base, BUGS)
    lines = (PATCHES / "series" / base).read_text(encoding="utf-8").splitlines()
    assert [series.patch_name(patch) for patch in patches] == [line for line in lines if line[:1] not in ("", "#")]
    if form == "stable" and base.startswith("olk"):
        with pytest.raises(BadInput, match="no tree of stable's has this code"):
            export.export(patches, FORMATS[form], tmp_path / "out")
        return
    mails, _ = export.export(patches, FORMATS[form], tmp_path / "out")
    assert [path.name[:4] for path in mails] == [f"{number:04}" for number in range(1, len(patches) + 1)]
    for patch, path in zip(patches, mails, strict=True):
        text = path.read_text(encoding="utf-8")
        assert text.split("\n---\n", 1)[1] == patch.read_text(encoding="utf-8").split("\n---\n", 1)[1]
        assert len(re.findall(f"^Signed-off-by: {PERSON}$", text, re.MULTILINE)) == 1
    assert sorted((tmp_path / "out").glob("*.patch")) == mails


def test_without_signoff_nobody_signs(tmp_path: Path) -> None:
    (path,), blanks = export.export([OWN], export.Options("stable"), tmp_path / "out")
    assert "Signed-off-by" not in path.read_text(encoding="utf-8")
    assert "From: kmend <kmend@localhost>" in blanks


def test_bugs_without_a_fix_in_a_series_are_told() -> None:
    """Those that a tree of the base's age may have: which fix it needs is known of a tree alone."""
    assert [bug.id for bug in export.of_base("openeuler-1.0-lts", BUGS)[1]] == ["memcg-uncharge", "hwsim-del"]
    told = [bug.id for bug in export.of_base("linux-6.12.y", BUGS)[1]]
    assert told == ["riscv-kvm-exit", "memcg-uncharge"]


def test_nobody_to_sign_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="set user.name and user.email"):
        export.identity()


# What openEuler RISC-V's gate ignores, and what needs mainline's history.
IGNORED = (
    "CONFIG_DESCRIPTION,FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID,FROM_SIGN_OFF_MISMATCH,REPEATED_WORD,"
    "BLOCK_COMMENT_STYLE,AVOID_EXTERNS,AVOID_BUG"
    # Upstream names no cause of one bug.
    ",MISSING_FIXES_TAG"
)
# What newer ones say of the header itself that openEuler's checks want: a URL behind bugzilla:, a line of dashes.
HEADER = ",COMMIT_LOG_USE_LINK,BAD_COMMIT_SEPARATOR"
# Up to v5.6 a line had 80 columns, and an author one address: upstream's own lines and mails are as they are.
OLDER = ",NO_AUTHOR_SIGN_OFF"


UPSTREAM = {trailer for bug in BUGS for item in bug.upstream for trailer in item.trailers}


def checkpatches() -> list[Path]:
    """Return the checkpatch.pl of each tree at hand."""
    return [path / "scripts/checkpatch.pl" for path in real_trees() if (path / "scripts/checkpatch.pl").is_file()]


@pytest.mark.parametrize("script", checkpatches() or [None], ids=lambda path: path.parts[-3] if path else "no tree")
# A vendor's code goes to no stable tree.
@pytest.mark.parametrize(
    ("form", "base"), [(form, base) for form in FORMATS for base in SERIES if f"{form}-{base}"[:11] != "stable-olk-"]
)
def test_checkpatch_as_the_gate_runs_it(tmp_path: Path, script: Path | None, base: str, form: str) -> None:
    if not script:
        pytest.skip("no real tree here: set KMEND_TREES")
    known = script.read_text(encoding="utf-8")
    ignored = IGNORED + (HEADER if form == "openeuler" else "") + (OLDER if "max_line_length = 80" in known else "")
    mails, _ = export.export(export.of_base(base, BUGS)[0], FORMATS[form], tmp_path / "out")
    for path in mails:
        text = path.read_text(encoding="utf-8")
        # As a person fills it in. Up to v6.12 checkpatch does not know the tag, and those trees do not ask for it.
        filled = "Assisted-by: Name:version\n" if "Assisted-by" in known else ""
        text = re.sub(r"^Assisted-by: <<< .*\n", filled, text, flags=re.MULTILINE)
        author = re.findall(r"^From: (.+)", text, re.MULTILINE)[0]
        path.write_text(re.sub(r"^(Signed-off-by: )<<< .*", rf"\1{author}", text, flags=re.MULTILINE), encoding="utf-8")
    options = ["--no-tree", "--strict", "--max-line-length=100", f"--ignore={ignored}", "--emacs"]
    command = ["perl", str(script.absolute()), *options, *map(str, mails)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = {str(path): path.read_text(encoding="utf-8").splitlines() for path in mails}
    told = re.findall(r"^(/\S+?):(\d+): (.*)$", done.stdout, re.MULTILINE)
    # A trailer is upstream's own word.
    assert [says for path, line, says in told if lines[path][int(line) - 1] not in UPSTREAM] == [], done.stdout
    assert done.stdout.count("total: 0 errors, ") == len(mails) > 0, done.stdout
