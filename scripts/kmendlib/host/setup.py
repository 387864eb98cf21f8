# SPDX-License-Identifier: GPL-2.0-only
"""Finds and installs what the driver needs: ``packages.toml`` says what, the distribution's package tool does it."""

import contextlib
import ctypes
import importlib.util
import os
import platform
import re
import shutil
import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmendlib.host import proc
from kmendlib.host.errors import Infrastructure
from kmendlib.host.paths import SCRIPTS, cache

BACKPORTS = Path("etc/apt/sources.list.d/kmend-backports.list")


@dataclass(frozen=True)
class Need:
    """One row of packages.toml: a file that must be there, in this major version, and the packages that have it.

    What is marked as extra is needed where something asks for it; where its dnf is empty, openEuler goes without.
    """

    file: str
    apt: str
    dnf: str
    version: int = 0
    extra: bool = False

    def met(self) -> bool:
        """Tell whether the file is there, in the major version asked for."""
        if self.file == "libpython":
            with contextlib.suppress(OSError):
                return bool(ctypes.CDLL(sysconfig.get_config_var("LDLIBRARY")))
            return False
        if self.file.startswith("python:"):
            return importlib.util.find_spec(self.file.removeprefix("python:")) is not None
        program = shutil.which(self.file)
        version = self.version
        if not program and (suffix := re.search(r"-(\d+)$", self.file)):
            # Other distributions name the compiler's programs without the version, and Debian names an old one so.
            program = shutil.which(self.file.removesuffix(suffix[0]))
            version = int(suffix[1])
        if not program:
            return self.file.startswith("/") and Path(self.file).exists()
        if not version:
            return True
        reported = re.search(r"(?:version|LLD) (\d+)", proc.output([program, "--version"]) or "")
        return reported is not None and int(reported[1]) >= version


def _packages() -> dict[str, Any]:
    return tomllib.loads((SCRIPTS / "packages.toml").read_text(encoding="utf-8"))


def needs() -> list[Need]:
    """Read packages.toml."""
    return [Need(**row) for row in _packages()["need"]]


def os_release() -> dict[str, str]:
    """Read os-release(5): what distribution this is; nothing where there is none."""
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


def debian_line(wanted: str, root: Path = Path("/")) -> str | None:
    """Make the sources.list(5) line of a suite of Debian, on the mirror that the machine's own release comes from.

    Both formats of apt's sources are understood, one-line and deb822.

    Args:
        wanted: the suite that the line is for.
        root: where the machine's files are.

    Returns:
        The line, or None where no source names the release.
    """
    suite = os_release().get("VERSION_CODENAME", "")
    apt = root / "etc/apt"
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            entry = re.match(rf"deb\s+(\[[^]]*\]\s+)?(\S+)\s+{re.escape(suite)}\s+(?=.*\bmain\b)", line)
            if entry:
                return f"deb {entry[1] or ''}{entry[2]} {wanted} main"
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            if field.get("Enabled", "yes") == "no" or "deb" not in field.get("Types", "").split():
                continue
            if suite in field.get("Suites", "").split() and "main" in field.get("Components", "").split():
                key = field.get("Signed-By", "")
                option = f"[signed-by={key}] " if key.startswith("/") else ""
                return f"deb {option}{field['URIs'].split()[0]} {wanted} main"
    return None


def _apt(missing: list[Need], say: Callable[[str], None]) -> list[list[str]]:
    """Return the steps that install what is missing in Debian; add its backports to apt's sources if it takes them."""
    suite = os_release().get("VERSION_CODENAME", "")
    # Where the release's own version of a package is too old, all that is taken from it comes from the backports.
    versioned = {need.apt for need in needs() if need.version}
    old = [need.apt for need in missing if need.apt in versioned]
    new = [need.apt for need in missing if need.apt not in versioned]
    apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends"]
    backports = bool(old) and suite in _packages()["backports"]
    if backports and not Path("/", BACKPORTS).exists():
        line = debian_line(f"{suite}-backports")
        if not line:
            names = ", ".join(dict.fromkeys(old))
            raise Infrastructure(f"no source of '{suite} main' in /etc/apt: add {suite}-backports there for {names}")
        text = f"# Added by kmend for {', '.join(dict.fromkeys(old))}.\n{line}\n"
        Path("/", BACKPORTS).write_text(text, encoding="utf-8")
        say(f"apt source added: /{BACKPORTS}")
    steps = [["apt-get", "-q", "update"]]
    if new:
        steps.append([*apt, "install", *dict.fromkeys(new)])
    if old:
        steps.append([*apt, *(["-t", f"{suite}-backports"] if backports else []), "install", *dict.fromkeys(old)])
    return steps


def ensure(say: Callable[[str], None], files: Iterable[str] | None = None) -> None:
    """Install what is missing, or say what to install.

    Args:
        say: takes one line at a time of what is being done.
        files: look only at these needs (names as in packages.toml); by default at all but the extra ones.

    Raises:
        Infrastructure: something is missing and this user or distribution cannot have it installed from here; the
            message is the exact list.
    """
    wanted = None if files is None else set(files)
    chosen = [need for need in needs() if (not need.extra if wanted is None else need.file in wanted)]
    missing = [need for need in chosen if not need.met()]
    if not missing:
        return
    like = {os_release().get("ID", ""), *os_release().get("ID_LIKE", "").split()}
    manager = ""
    if "debian" in like and shutil.which("apt-get"):
        manager = "apt-get"
    elif {word.lower() for word in like} & {"openeuler", "kylin", "fedora"} and shutil.which("dnf"):
        manager, missing = "dnf", [need for need in missing if need.dnf]
        if not missing:
            return
    packages = list(dict.fromkeys(need.dnf if manager == "dnf" else need.apt for need in missing))
    listed = " ".join(packages)
    if not manager:
        names = " ".join(need.file for need in missing)
        raise Infrastructure(f"missing here: {names}; install them (Debian's packages: {listed})")
    if os.geteuid() != 0:
        raise Infrastructure(f"missing here; run as root: {manager} install {listed}")
    say(f"installing: {listed}")
    log = cache() / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for step in _apt(missing, say) if manager == "apt-get" else [["dnf", "-q", "-y", "install", *packages]]:
        if proc.run_logged(step, log, env=proc.environment({"DEBIAN_FRONTEND": "noninteractive"}, fetch=True)):
            lines = log.read_text(errors="replace", encoding="utf-8").splitlines()
            last = ["no reason given", *(line for line in lines if line.startswith("E:"))][-1]
            reason = f": {last}" if manager == "apt-get" else ""
            raise Infrastructure(f"'{' '.join(step)}' failed{reason} (log: {log})")
    importlib.invalidate_caches()
    left = [need for need in missing if not need.met()]
    if left:
        raise Infrastructure(
            "still missing after the installation: "
            + ", ".join(f"{need.file}{f' {need.version} or later' if need.version else ''}" for need in left)
            + f" (log: {log})"
        )


def main(say: Callable[[str], None]) -> None:
    """Run ``kmend setup``: install what is missing and tell what there is."""
    ensure(say)
    say(f"all {sum(not need.extra for need in needs())} needs are met")
