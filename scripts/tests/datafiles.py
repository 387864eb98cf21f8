# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong in the project's data files, by scripts/schemas/data.json and by what they say of each other.

The driver takes them as they are: here is who would be told first.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jsonschema

from kmendlib.host.paths import SCRIPTS
from kmendlib.tree import arches, bases, manifest

SCHEMA = json.loads((SCRIPTS / "schemas/data.json").read_text(encoding="utf-8"))


def _there(folder: Path) -> Callable[[object], bool]:
    def there(name: object) -> bool:
        if not isinstance(name, str) or (folder / name).is_file():
            return True
        raise ValueError(f"{(folder / name).relative_to(manifest.REPO)} is not there")

    return there


def _one_of(what: str, known: Callable[[], Iterable[str]]) -> Callable[[object], bool]:
    def one_of(name: object) -> bool:
        if not isinstance(name, str) or name in known():
            return True
        raise ValueError(f"unknown {what}: {name}")

    return one_of


FORMATS = jsonschema.FormatChecker(["regex"])
for _name, _check in {
    "patch": _there(manifest.PATCHES),
    "series": _there(manifest.PATCHES / "series"),
    "kunit": _there(manifest.KUNIT),
    "kselftest": _there(manifest.SELFTESTS),
    "rule": _there(manifest.RULES),
    "architecture": _one_of("architecture", arches.names),
    "base": _one_of("base", lambda: [path.stem for path in bases.BASES.glob("*.toml")]),
    "finding": _one_of("finding", lambda: [each.id for bug in manifest.load().bugs for each in bug.findings]),
}.items():
    FORMATS.checks(_name, ValueError)(_check)


def problems(path: Path, kind: str, there: bool = True) -> list[str]:
    """Return what is wrong in a data file, each with its place, as in `bug a-bug.finding a-bug/x.fix[0]: ...`.

    Args:
        path: the file.
        kind: ``bugs``, ``base`` or ``timelines``.
        there: whether the files that it names have to be there.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return [f"{path}: not TOML: {error}"]
    schema = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}
    errors = list(jsonschema.Draft202012Validator(schema, format_checker=FORMATS).iter_errors(data))
    found = [f"{_place(data, error.absolute_path)}: {_reason(error)}" for error in errors]
    if not there:
        found = [each for each in found if not each.endswith(" is not there")]
    if kind == "bugs" and not found:
        found = list(_between(data, there))
    return [f"{path}: {each}" for each in found]


def _reason(error: jsonschema.ValidationError) -> str:
    what = error.schema.get("description", "") if error.validator == "pattern" else ""
    return str(error.cause or (f"{error.instance!r} is not {what}" if what else error.message))


def _place(data: Any, steps: Iterable[str | int]) -> str:
    """Return where something is: of a table that has a name, the name."""
    words: list[str] = []
    for step in steps:
        data = data[step]
        if isinstance(step, str):
            words.append(step)
            continue
        name = (data.get("id") or data.get("name")) if isinstance(data, dict) else None
        words[-1] += f" {name}" if name else f"[{step}]"
    return ".".join(words) or "top"


def _between(data: dict[str, Any], there: bool) -> Iterable[str]:
    """Tell what does not go together, in a manifest whose every part is right by itself."""
    bugs = data["bug"]
    for what, names in (
        ("bug", [bug["id"] for bug in bugs]),
        ("finding", [finding["id"] for bug in bugs for finding in bug["finding"]]),
        ("suite", [suite["name"] for bug in bugs for suite in bug.get("suite", [])]),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{what} twice: {name}"
    for bug in bugs:
        for finding in bug["finding"]:
            place = f"bug {bug['id']}.finding {finding['id']}"
            if not finding["id"].startswith(f"{bug['id']}/"):
                yield f"{place}: id must be {bug['id']}/NAME"
            if there and "rule" not in finding and not (manifest.RULES / f"{bug['id']}.cocci").is_file():
                yield f"{place}: scripts/audit/{bug['id']}.cocci is not there"
            if there:
                variants = [manifest._variant(bug["id"], names) for names in finding["fix"]]
                for key in ("unverified", "depends"):
                    strange = set(finding.get(key, [])) - {name for names in variants for name in names}
                    for name in sorted(strange):
                        yield f"{place}.{key}: {name}: no patch of its fix"
        ids = {finding["id"].partition("/")[2] for finding in bug["finding"]}
        for kind in ("suite", "selftest"):
            for test in bug.get(kind, []):
                for name in sorted(set(test.get("proof", {})) - ids):
                    place = f"bug {bug['id']}.{kind} {test['name']}.proof"
                    yield f"{place}: proof of {bug['id']}/{name}, which is no finding of this bug"
