# SPDX-License-Identifier: GPL-2.0-only
"""Changes files of a tree as one transaction, which can be taken back whatever moment it was cut off at.

The tree gets a folder `.kmend`. Its journal, `state.json`, comes first and goes last: it has each file's SHA-256 before
and after. Beside it lie the new files (`new/`), copies of the old ones (`old/`), and the patches. When all that is on
the disk, each file is swapped in by a rename. So each file of the tree is at any moment the old one or the new one,
which its hash tells, and there is no other state to keep: a power cut, a kill and a `git checkout` leave the same kind
of tree, and taking back is to give each file that is the new one its old bytes.

A tree may be a stranger's, its `.kmend` too. So nothing is changed before everything was looked at: no path goes
through a symbolic link or a mount, `.kmend` has nothing that the journal does not name, and each copy is what the
journal says it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path, PurePosixPath

from kmendlib.host import proc
from kmendlib.host.errors import BadInput, Infrastructure, KmendError
from kmendlib.host.files import read_text

STATE = ".kmend"
_JOURNAL = "state.json"
_UNNAMED = "state.new"  # the journal while it is written
_OUT = "out"  # an added file that is being removed
_JOURNAL_LIMIT = 1 << 20

# Of <fcntl.h>, <linux/fs.h>; Python has none of it.
_AT_FDCWD, _NO_REPLACE, _EXCHANGE = -100, 1, 2
_FS_IOC_GETFLAGS, _FS_IMMUTABLE_FL, _FS_APPEND_FL = 0x80086601, 0x10, 0x20
_LIBC = ctypes.CDLL(None, use_errno=True)


class Now(Enum):
    """What a file of a transaction is at the moment."""

    OLD = "as it was before"
    NEW = "as it was applied"
    GONE = "gone"
    OTHER = "changed"


@dataclass(frozen=True)
class File:
    """One file of a transaction; a hash is the SHA-256 of its bytes, `old` is None where the file is added."""

    name: str
    old: str | None
    new: str

    def now(self, root: Path) -> Now:
        """Tell what the file is in the tree at `root`."""
        found = digest(root / self.name)
        if found in (self.old, self.new):
            return Now.NEW if found == self.new else Now.OLD
        return Now.GONE if found is None else Now.OTHER


@dataclass(frozen=True)
class Journal:
    """What `.kmend/state.json` holds.

    Attributes:
        patches: the patches, in order, as paths below patches/.
        files: the files that are swapped.
        folders: the folders that are made for added files, parents first.
    """

    patches: list[str]
    files: list[File]
    folders: list[str] = field(default_factory=list)


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none, "" where it is something else."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep every other kmend off the tree. The lock is on the folder itself and leaves no file."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise BadInput(f"{root}: another kmend is at work on this tree; wait for it") from None
        # Some network file systems lock no folder. mkdir of .kmend still lets one of two in.
    try:
        yield
    finally:
        os.close(descriptor)


def commit(root: Path, patches: Mapping[str, bytes], new: Mapping[str, bytes], old: Mapping[str, str | None]) -> None:
    """Swap files into the tree. On any failure or signal the tree is as it was.

    Args:
        root: the tree.
        patches: the patches that are in it then, by their names: a tree must say by itself what was done to it.
        new: what the files become, by their names in the tree. `refuse_unfit` let them pass.
        old: the SHA-256 of what that was made from, None for a file that is added.

    Raises:
        BadInput: a file was saved by somebody meanwhile, and is as it was saved; or the tree cannot be written.
        Infrastructure: the disk is full, or fails.
        KeyboardInterrupt: a signal that ends the program came.
    """
    files = [File(name, old[name], hashlib.sha256(data).hexdigest()) for name, data in new.items()]
    journal = Journal(list(patches), files, _missing_folders(root, [file.name for file in files if file.old is None]))
    swapped: list[File] = []
    with proc.held_signals():
        try:
            os.mkdir(root / STATE)
        except OSError as error:
            raise _cannot_write(root, error) from error
        try:
            _prepare(root, journal, patches, new)
            for folder in journal.folders:
                os.mkdir(root / folder)
            for file in files:
                _stop_if_told()
                _swap(root / STATE / "new" / file.name, root / file.name, file.old)
                swapped.append(file)
            _sync(*_folders(root, journal))
            shutil.rmtree(root / STATE / "new")
            _stop_if_told()
        except BaseException as error:
            take_back(root, replace(journal, files=swapped))
            if isinstance(error, OSError):
                raise _cannot_write(root, error) from error
            raise
        # What came after the last look came too late to stop anything.
        while signal.sigtimedwait(proc.ENDING, 0):
            pass


def _prepare(root: Path, journal: Journal, patches: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
    """Put all that the transaction needs into `.kmend`, and onto the disk."""
    state = root / STATE
    _write(state / _UNNAMED, (json.dumps(asdict(journal), indent=1) + "\n").encode())
    _sync(state / _UNNAMED)
    os.replace(state / _UNNAMED, state / _JOURNAL)
    _sync(state, root)
    for file in journal.files:
        path = root / file.name
        _write(state / "new" / file.name, new[file.name])
        if file.old is not None:
            _write(state / "old" / file.name, path.read_bytes())
            if digest(state / "old" / file.name) != file.old:
                raise _saved_meanwhile(path)
            for part in ("new", "old"):
                _like(path, state / part / file.name)
    for name, data in patches.items():
        _write(state / "patches" / name, data)
    for folder, _, names in os.walk(state):
        _sync(*(Path(folder, name) for name in names), Path(folder))


def check(root: Path) -> Journal:
    """Read the tree's journal, and see that all in `.kmend` is what it says.

    Returns:
        The journal; one without files where a transaction was cut off before it had one.

    Raises:
        BadInput: the journal cannot be read, or there is something that it does not name.
    """
    state, mounts = root / STATE, _mounts()
    _refuse_detour(state, False, mounts)
    journal = _read(state / _JOURNAL)
    known = {_UNNAMED}
    if journal:
        known |= {_JOURNAL, _OUT, *(f"patches/{name}" for name in journal.patches)}
        known |= {f"{part}/{file.name}" for file in journal.files for part in ("old", "new")}
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    for folder, *inside in os.walk(state):
        for path in (Path(folder, name) for names in inside for name in names):
            mode, name = path.lstat().st_mode, str(path.relative_to(state))
            ours = name in folders if stat.S_ISDIR(mode) else name in known and stat.S_ISREG(mode)
            if not ours or path in mounts:
                what = f"{_JOURNAL} does not name it" if journal else f"there is no {_JOURNAL} with it"
                raise BadInput(
                    f"{path} is not known to be kmend's: {what}; put back by hand what you need of {STATE}/old, "
                    f"then move {state} away"
                )
    return journal or Journal([], [])


def _read(path: Path) -> Journal | None:
    """Return the journal, None where there is none. It came with the tree: it must not lead out of it."""
    try:
        data = json.loads(read_text(path, _JOURNAL_LIMIT))
        journal = Journal(data["patches"], [File(**entry) for entry in data["files"]], data["folders"])
        for name in [*journal.patches, *(file.name for file in journal.files)]:
            pure = PurePosixPath(name)
            inside = pure.parts and not pure.is_absolute() and not {"..", ".git", STATE} & set(pure.parts)
            if not inside or str(pure) != name or b"\0" in os.fsencode(name):
                raise ValueError(f"path {name!r}")
        for value in (value for file in journal.files for value in (file.old, file.new) if value is not None):
            if not re.fullmatch("[0-9a-f]{64}", value):
                raise ValueError(f"hash {value!r}")
        added = [file.name for file in journal.files if file.old is None]
        if not set(journal.folders) <= {str(parent) for name in added for parent in PurePosixPath(name).parents[:-1]}:
            raise ValueError("folders that are not of its files")
        return journal
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); the old files are in {STATE}/old") from error


def refuse_unfit(root: Path, names: Sequence[str]) -> None:
    """Raise BadInput where one of the files cannot be swapped, so that it is known before any is."""
    mounts = _mounts()
    for name in [STATE, *names]:
        path = folder = root
        for part in PurePosixPath(name).parts:
            folder, path = path, path / part
            if not os.path.lexists(path):
                break
            _refuse_detour(path, name != STATE and path == root / name, mounts)
        for fixed in (folder, path):
            if _is_fixed(fixed):
                raise BadInput(f"{fixed} is immutable or append-only: run chattr -i -a on it, or leave it as it is")
        if os.statvfs(folder).f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
            raise BadInput(f"{folder} is read-only; give a tree that may be written")
        if path.exists() and os.geteuid() not in (0, path.stat().st_uid):
            owner = path.stat().st_uid
            raise BadInput(f"{path} belongs to another user (id {owner}): run kmend as that user or as root")


def _refuse_detour(path: Path, last: bool, mounts: set[Path]) -> None:
    """Raise BadInput where a path that is to be swapped, or a folder that it goes through, is none of the tree's."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise BadInput(f"{path}: a symbolic link is in this path; give a tree that holds the file itself")
    if path in mounts:
        raise BadInput(f"{path} is a mount, where files cannot be swapped: unmount it, or give a tree without")
    if not (stat.S_ISREG(mode) if last else stat.S_ISDIR(mode)):
        raise BadInput(f"{path} is no {'regular file' if last else 'folder'}, as it must be")


def refuse_lossy(root: Path, journal: Journal) -> None:
    """Raise BadInput where a file was changed by somebody, or where a copy that is to be given back is not whole."""
    for file in journal.files:
        path, copy, now = root / file.name, root / STATE / "old" / file.name, file.now(root)
        if now in (Now.GONE, Now.OTHER):
            raise BadInput(
                f"{path} {'is gone' if now is Now.GONE else 'was changed'} since it was applied: put it back as it "
                f"was, then run unapply; or keep all as it is, and remove {root / STATE}"
            )
        if now is Now.NEW and file.old is not None and digest(copy) != file.old:
            raise BadInput(
                f"{copy} is not the file that was kept there (its SHA-256 is another): {file.name} cannot be given "
                f"back, and nothing was changed; get it from where the tree came from, then remove {root / STATE}"
            )


@proc.held_signals()
def take_back(root: Path, journal: Journal) -> list[str]:
    """Give the tree back its old files and take `.kmend` away. It may be cut off and started again at any point.

    A signal that ends the program is heard when it is done.

    Returns:
        Notes for the user.
    """
    state, notes = root / STATE, []
    try:
        for file in journal.files:
            path, copy = root / file.name, state / "old" / file.name
            if file.now(root) is Now.OLD:
                continue
            if file.old is None:
                _take_out(path, state / _OUT, file.new)
            else:
                # Newer than any object that was built from the mended file, so that make sees the change.
                os.utime(copy)
                _swap(copy, path, file.new)
        _sync(*_folders(root, journal))
        for folder in reversed(journal.folders):
            try:
                os.rmdir(root / folder)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    notes.append(f"{folder} stays: files that are not kmend's are in it")
                elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
        for part in ("new", "old", "patches"):
            if (state / part).exists():
                shutil.rmtree(state / part)
        _sync(state)
        # Without a journal nothing was swapped in, so it goes last.
        for part in (_OUT, _UNNAMED, _JOURNAL):
            (state / part).unlink(missing_ok=True)
        os.rmdir(state)
        _sync(root)
    except OSError as error:
        raise _cannot_write(root, error) from error
    return notes


def _stop_if_told() -> None:
    """Raise KeyboardInterrupt where a signal that ends the program is waiting."""
    if signal.sigpending() & proc.ENDING:
        raise KeyboardInterrupt


def _swap(ours: Path, path: Path, expected: str | None) -> None:
    """Put the file `ours` in the place of `path`, where there is a file with the hash `expected`, or none.

    Raises:
        BadInput: there is something else, which is left there.
    """
    if digest(path) != expected:
        raise _saved_meanwhile(path)
    try:
        _rename(ours, path, _NO_REPLACE if expected is None else _EXCHANGE)
    except FileExistsError:
        raise _saved_meanwhile(path) from None
    # What was saved since the first look has come out.
    if expected is not None and os.path.lexists(ours) and digest(ours) != expected:
        _rename(ours, path, _EXCHANGE)
        raise _saved_meanwhile(path)


def _take_out(path: Path, out: Path, expected: str) -> None:
    """Remove the file `path`, which has the hash `expected`, by way of `out`; raise BadInput where it has another."""
    os.replace(path, out)
    if digest(out) != expected:
        _rename(out, path, _NO_REPLACE)
        raise _saved_meanwhile(path)


def _saved_meanwhile(path: Path) -> BadInput:
    return BadInput(f"{path} changed while kmend was at work: it is as it was saved; start again")


def _rename(source: Path, target: Path, flag: int) -> None:
    """Rename a file so that none is lost: no file is replaced (_NO_REPLACE), or both change places (_EXCHANGE)."""
    sys.audit("os.rename", source, target, -1, -1)  # as os.rename() does
    call = getattr(_LIBC, "renameat2", None)
    if call and call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag) == 0:
        return
    number = ctypes.get_errno() if call else errno.ENOSYS
    if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise OSError(number, os.strerror(number), str(target))
    # NFS, for one, has a plain rename alone.
    if flag == _NO_REPLACE and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.replace(source, target)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _like(path: Path, copy: Path) -> None:
    """Give `copy` the owner, the mode and the extended attributes of `path`, its ACL among them.

    Raises:
        BadInput: one of them cannot be kept.
    """
    status, mine = path.stat(), copy.stat()
    what = f"owner {status.st_uid}:{status.st_gid}"
    try:
        if (status.st_uid, status.st_gid) != (mine.st_uid, mine.st_gid):
            os.chown(copy, status.st_uid, status.st_gid)
        os.chmod(copy, stat.S_IMODE(status.st_mode))
        wanted, there = _attributes(path), _attributes(copy)
        for what in there.keys() - wanted.keys():
            os.removexattr(copy, what)
        for what, value in wanted.items():
            if there.get(what) != value:
                os.setxattr(copy, what, value)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise BadInput(
            f"{path}: its {what} cannot be kept ({error.strerror}): run kmend as the file's owner or as root"
        ) from error


def _attributes(path: Path) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return {}


def _sync(*paths: Path) -> None:
    """See that files and folders are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems sync no folder.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
        finally:
            os.close(descriptor)


def _folders(root: Path, journal: Journal) -> list[Path]:
    """Return the folders whose entries a transaction changes, as far as they are there."""
    names = [*(file.name for file in journal.files), *journal.folders]
    return [folder for folder in sorted({(root / name).parent for name in names}) if folder.is_dir()]


def _missing_folders(root: Path, names: Sequence[str]) -> list[str]:
    """Return the folders that must be made for `names`, parents first."""
    parents = {parent for name in names for parent in Path(name).parents}
    return sorted(str(parent) for parent in parents if not (root / parent).exists())


def _mounts() -> set[Path]:
    """Return where something is mounted; the kernel writes blanks and the like as three octal digits."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    points = (re.sub(rb"\\([0-7]{3})", lambda digits: bytes([int(digits[1], 8)]), line.split()[4]) for line in lines)
    return {Path(os.fsdecode(point)) for point in points}


def _is_fixed(path: Path) -> bool:
    """Tell whether a file or folder is immutable or append-only (chattr(1)), as far as its file system says so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            flags = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
        finally:
            os.close(descriptor)
        return bool(int.from_bytes(flags[:4], sys.byteorder) & (_FS_IMMUTABLE_FL | _FS_APPEND_FL))
    return False


def _cannot_write(root: Path, error: OSError) -> KmendError:
    end = f"mend that, then run kmend unapply {root}" if os.path.lexists(root / STATE) else "it is as it was"
    kind = BadInput if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY) else Infrastructure
    where = f": {error.filename}" if error.filename else ""
    return kind(f"{root} cannot be written: {error.strerror or error}{where}; {end}")
