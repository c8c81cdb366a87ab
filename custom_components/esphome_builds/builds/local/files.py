"""Reads small files that others write to, and tells whether they changed."""

import errno
import os
from pathlib import Path
import stat
from typing import Final

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
"""What says nothing of a file: there was no descriptor left to open it."""

MAX_BYTES: Final = 1024 * 1024
"""The most that is read of one file."""

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

type Signature = tuple[int, int, int, int]
"""What differs when a file was written, replaced or had its permissions changed."""


class NoRegularFileError(FileNotFoundError):
    """What stands under the name is a folder, a pipe, a link or a device."""


def signature(status: os.stat_result) -> Signature:
    """Return the signature of a file."""
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns)


def find(path: str) -> Signature | None:
    """Return the signature of a regular file, or None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - thousands a scan, Path takes twice as long
    except OSError:
        return None
    return signature(status) if stat.S_ISREG(status.st_mode) else None


def read(path: str) -> tuple[bytes, Signature]:
    """Return the content, one byte more than allowed at most, and its signature.

    Never waits for the writer of a pipe and never follows a link that took the file's
    place. Raises `FileNotFoundError` where there is no regular file, else `OSError`.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise NoRegularFileError(path) from err
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NoRegularFileError(path)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1), signature(status)
    finally:
        os.close(descriptor)


def inside(path: str, folder: str | Path) -> str | None:
    """Return where a path really leads, or None where that is not inside the folder."""
    real = os.path.realpath(path)
    root = os.path.realpath(folder)
    return real if real.startswith(os.path.join(root, "")) else None  # noqa: PTH118
