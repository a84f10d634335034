import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safegen.errors import SafegenError
from safegen.files import file_atomically, folder_atomically, write_atomically

FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from safegen.errors import SafegenError
from safegen.files import file_atomically, folder_atomically, write_atomically

def fill_file(path):
    with file_atomically(path) as file:
        save_file({{"a": np.zeros(10_000)}}, file)

def fill_folder(path):
    with folder_atomically(path) as folder:
        (folder / "first.txt").write_text("fits")
        {fill}

resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    {act}
except SafegenError as error:
    sys.exit(str(error))
"""


def run_on_full_disk(path: Path, act: str, fill: str = "pass") -> str:
    """Run code in a process that may write 5000 bytes a file; returns its error message."""
    code = FULL_DISK.format(act=act.format(path=repr(str(path))), fill=fill)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stderr.strip()


def fill_folder(path: Path, error: Exception | None = None) -> None:
    """Write a folder with one file; raise an error in the middle if one is given."""
    with folder_atomically(path) as folder:
        (folder / "new.txt").write_text("new")
        if error is not None:
            raise error


def fill_file(path: Path, error: Exception) -> None:
    """Write a file; raise an error before it is whole."""
    with file_atomically(path) as temporary:
        temporary.write_bytes(b"new")
        raise error


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_write_makes_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_atomically(path, "first, ü")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert names_in(path.parent) == ["file.txt"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_write_obeys_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"")
        with file_atomically(tmp_path / "weights") as file:
            save_file({"a": np.zeros(1)}, file)
        with folder_atomically(tmp_path / "folder") as folder:
            save_file({"a": np.zeros(1)}, folder / "weights")
    finally:
        os.umask(before)
    for name in ("file", "weights", "folder/weights"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_large_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"
    for content in (b"first", b"second"):
        with file_atomically(path) as temporary:
            temporary.write_bytes(content)
            assert path.exists() == (content == b"second")
    assert path.read_bytes() == b"second"
    with pytest.raises(ValueError, match="own"):
        fill_file(path, ValueError("own"))
    assert path.read_bytes() == b"second"
    assert names_in(path.parent) == ["file.bin"]


def test_write_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_write_allows_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, "content")
    assert path.read_text() == "content"


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    message = run_on_full_disk(path, "write_atomically(Path({path}), bytes(10_000))")
    assert message.startswith(f"cannot write {path}: ")
    assert os.strerror(errno.EFBIG) in message
    assert message.count("\n") == 0
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file.bin"]


def test_full_disk_leaves_the_old_large_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"old")
    message = run_on_full_disk(path, "fill_file(Path({path}))")
    assert message.startswith(f"cannot write {path}: {os.strerror(errno.EFBIG)}")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file.safetensors"]


@pytest.mark.parametrize(
    "fill",
    [
        '(folder / "second.bin").write_bytes(bytes(10_000))',
        'save_file({"a": np.zeros(10_000)}, folder / "second.safetensors")',
    ],
    ids=["python", "safetensors"],
)
def test_full_disk_leaves_the_old_folder(tmp_path: Path, fill: str) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    message = run_on_full_disk(path, "fill_folder(Path({path}))", fill)
    assert message.startswith(f"cannot write {path}: {os.strerror(errno.EFBIG)}")
    assert names_in(tmp_path) == ["model"]
    assert names_in(path) == ["old.txt"]


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SafegenError, match=r"cannot write .*file/below/name: .*is a file"):
        write_atomically(tmp_path / "file" / "below" / "name", b"")
    with pytest.raises(SafegenError, match=r"cannot write .*file/name: .*is a file"):
        write_atomically(tmp_path / "file" / "name", b"")
    with pytest.raises(SafegenError, match=r"cannot write .*file: .*is a file"):
        fill_folder(tmp_path / "file", AssertionError("the block must not run"))
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SafegenError, match="choose a path that is not a folder"):
        write_atomically(tmp_path / "folder", b"content")
    with pytest.raises(SafegenError, match="choose a path that is not a folder"):
        fill_file(tmp_path / "folder", AssertionError("the block must not run"))
    assert names_in(tmp_path) == ["folder"]


def test_a_forbidden_folder_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:  # root may write anywhere, so be nobody for the moment
        os.seteuid(65534)
    try:
        with pytest.raises(SafegenError, match="choose a folder that you may write to"):
            write_atomically(closed / "file", b"content")
        with pytest.raises(SafegenError, match="choose a folder that you may write to"):
            fill_folder(closed / "folder", AssertionError("the block must not run"))
    finally:
        os.seteuid(user)
    assert names_in(closed) == []


def test_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "model"
    for name in ("first", "second"):
        with folder_atomically(path) as folder:
            (folder / name).write_text(name)
            assert path.exists() == (name == "second")
    assert names_in(path) == ["second"]
    assert names_in(path.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError("own"), FileNotFoundError(2, "No such file", "x")])
def test_an_error_in_the_block_passes_and_leaves_the_old_folder(
    tmp_path: Path, error: Exception
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(type(error)) as caught:
        fill_folder(path, error)
    assert caught.value is error
    assert names_in(tmp_path) == ["model"]
    assert names_in(path) == ["old.txt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")
    code = """
import os, signal, sys
from pathlib import Path
from safegen.files import write_atomically
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b"new" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
