# SPDX-License-Identifier: GPL-2.0-only
"""Files in a stranger's folder: what is read is a file and has an end, and nothing is written through a link."""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

# More than any file of a tree or of evidence has.
LIMIT = 256 << 20


def read(path: Path, limit: int = LIMIT) -> bytes:
    """Return a regular file's bytes.

    Args:
        path: the file.
        limit: how many bytes it may have.

    Raises:
        OSError: it cannot be read, is a pipe, device or folder, or has more bytes; strerror says what.
    """
    # A pipe without a writer must not be waited for. It could be put there after the first look: hence the second.
    _regular(path.stat(), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        _regular(os.fstat(descriptor), path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit >> 20} MiB", str(path))
    return data


def read_text(path: Path, limit: int = LIMIT, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return a regular file's text; raise as `read`, and ValueError where it has another encoding."""
    return read(path, limit).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of a file that is open say which one it is."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def write(files: Mapping[Path, str | bytes]) -> None:
    """Write files as a whole: a reader sees the old one or the new one, and on an error all are the old ones.

    Args:
        files: what is to be in each; text becomes UTF-8.

    Raises:
        OSError: one cannot be written, or there is something else than a regular file in its place, be it a link.
    """
    new: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            with contextlib.suppress(FileNotFoundError):
                _regular(path.lstat(), path)
            name = path.with_name(f".kmend-{secrets.token_hex(8)}")
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            new[path] = name
            with open(descriptor, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
        for path, name in new.items():
            os.replace(name, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        for name in new.values():
            name.unlink(missing_ok=True)
