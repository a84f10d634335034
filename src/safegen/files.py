"""Files: written whole or not at all, read with checks, and hashed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from safegen.errors import SafegenError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READABLE = 0o666
TEMPORARY = ".safegen-"
"""Beginning of the names of files and folders that are not yet whole."""
_MENDS = {
    errno.ENOENT: "check the path",
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some of your quota or write elsewhere",
    errno.EFBIG: "raise the limit (ulimit -f) or write elsewhere",
    errno.EACCES: "check the permissions, or choose a folder that you may write to",
    errno.EPERM: "check the permissions, or choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.EEXIST: "a part of the path is a file, choose another path",
    errno.ENOTDIR: "a part of the path is a file, choose another path",
    errno.EISDIR: "choose a path that is not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "free some memory",
    errno.EIO: "check the disk",
}


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name beside ``path``, flush it, and rename it.

    Missing parent folders are made; text is encoded as UTF-8.

    Raises:
        SafegenError: the file cannot be written; an earlier file stays as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    temporary = _name_beside(target)
    with _user_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def file_atomically(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path`` that takes its name when the block succeeds.

    Made for files too large for memory. Missing parent folders are made; an earlier file is
    replaced, and on an error stays as it was.

    Raises:
        SafegenError: the file cannot be made, or the disk became full in the block.
    """
    target = Path(os.path.realpath(path))
    temporary = _name_beside(target)
    with _user_errors(path):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
    try:
        with _user_errors(path, only=_FULL):
            yield temporary
        with _user_errors(path):
            temporary.chmod(mode)  # safetensors makes a new file with mode 0600
            _flush(temporary)
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its name when the block succeeds.

    An earlier folder is replaced as a whole; on an error it stays as it was.

    Raises:
        SafegenError: the folder cannot be made, or the disk became full in the block.
    """
    target = Path(os.path.realpath(path))
    temporary = _name_beside(target)
    with _user_errors(path):
        if target.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "is a file", str(target))
        temporary.mkdir(parents=True)
    try:
        with _user_errors(path, only=_FULL):
            yield temporary
        with _user_errors(path):
            _obey_umask(temporary)
            _take_place(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _obey_umask(folder: Path) -> None:
    """Give the files in a new folder the mode that the umask gives the folder."""
    mode = folder.stat().st_mode & _READABLE
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _name_beside(target: Path) -> Path:
    # The name ignores the target's, which may already be as long as names can be.
    return target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"


def _take_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.replace(target)
        return
    replaced = _name_beside(target)
    target.replace(replaced)
    try:
        temporary.replace(target)
    except BaseException:
        replaced.replace(target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _user_errors(path: Path, only: Collection[int] = ()) -> Iterator[None]:
    """Turn operating-system errors (of these numbers only) into one line about ``path``."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number is None or (only and number not in only):
            raise
        mend = mend_for(error, "choose another path")
        raise SafegenError(f"cannot write {path}: {os.strerror(number)}; {mend}") from error


def mend_for(error: Exception, otherwise: str) -> str:
    """Return the mend for an operating-system error; ``otherwise`` if its number is unknown."""
    return _MENDS.get(_error_number(error) or 0, otherwise)


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # Writers in Rust, such as safetensors, raise their own errors, which only give the number.
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def check_regular(file: Path) -> None:
    """Refuse anything but a regular file: a folder, or a pipe, which would block.

    Raises:
        SafegenError: the file is missing or of another kind.
    """
    if not file.is_file():
        kind = "is a folder, pipe or device" if file.exists() else "no such file"
        raise SafegenError(f"{file}: {kind}; check the path and give a file")


def read_object(file: Path, mend: str = "download it again") -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        SafegenError: the file cannot be read or holds no object; the message ends with ``mend``.
    """
    check_regular(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SafegenError(f"{file}: cannot be read as JSON ({error.strerror}); {mend}") from error
    except (ValueError, RecursionError) as error:
        raise SafegenError(f"{file}: is not valid JSON ({error}); {mend}") from error
    if not isinstance(found, dict):
        raise SafegenError(f"{file}: must be a JSON object, not {type(found).__name__}; {mend}")
    return found


def read_mapping(path: Path, example: str) -> dict[str, tuple[Any, int]]:
    """Read a YAML mapping: each value with its line, by name, with underscores for hyphens.

    Args:
        path: the file.
        example: an entry such as ``steps: 500``, for the error's message.

    Raises:
        SafegenError: the file is no YAML mapping, or has a name twice.
    """
    import yaml

    check_regular(path)
    found: dict[str, tuple[Any, int]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise SafegenError(f"{path}: no mapping of settings to values, such as {example!r}")
        for key, node in root.value:
            name, line = str(key.value).replace("-", "_"), key.start_mark.line + 1
            if name in found:
                raise SafegenError(f"{path}, line {line}: {name!r} is there twice")
            found[name] = yaml.SafeLoader("").construct_object(node, deep=True), line
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SafegenError(f"{path}: no YAML: {error}") from error
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
