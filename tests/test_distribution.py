"""Wheel and source distribution: they hold all that runs, little else, and the wheel runs."""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from safegen.version import __version__

ROOT = Path(__file__).parents[1]
LARGEST_WHEEL = 80e6
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


def tracked() -> list[str]:
    """Names of all files under version control."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = filter(None, listed.stdout.decode().split("\0"))
    return [name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, made of the tracked files alone."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True)
    return folder / "dist"


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip unpacks it."""
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size <= LARGEST_WHEEL
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(unpacked: Path) -> None:
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    wanted = {name.removeprefix("src/") for name in tracked() if name.startswith("src/safegen/")}
    about = f"safegen-{__version__}.dist-info/"
    assert {name for name in held if not name.startswith(about)} == wanted
    assert f"{about}licenses/LICENSE" in held


def test_the_source_distribution_can_be_built_and_tested(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    wanted = {name for name in tracked() if not name.startswith(".")}
    assert wanted - held == set()


def test_the_metadata_say_what_is_needed(unpacked: Path) -> None:
    about = unpacked / f"safegen-{__version__}.dist-info"
    told = email.message_from_string((about / "METADATA").read_text(encoding="utf-8"))
    assert told["Requires-Python"] == "<3.14,>=3.11"
    classifiers = told.get_all("Classifier") or []
    supported = {each.split()[-1] for each in classifiers if "Python :: 3." in each}
    assert supported == {"3.11", "3.12", "3.13"}
    needs = told.get_all("Requires-Dist") or []
    signing = [line for line in needs if line.startswith("model-signing")]
    assert any('extra == "release"' in line for line in signing)
    extras = set(told.get_all("Provides-Extra") or [])
    assert {"release", "nudenet", "lora", "ray", "play"} <= extras
    points = configparser.ConfigParser(delimiters="=")
    points.optionxform = str  # type: ignore[assignment, method-assign]
    points.read(about / "entry_points.txt")
    places = [value for group in points.sections() for value in points[group].values()]
    assert "safegen.lab.profile:LAB" in places
    for place in places:
        module = unpacked / place.partition(":")[0].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file(), place


def test_the_unpacked_wheel_runs(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import safegen; print(safegen.__file__); from safegen.lab import weights_folder; "
        "from safegen.release.policy import DEFAULT, read_policy; read_policy(DEFAULT); "
        "print((weights_folder() / 'model_index.json').is_file())"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    for command in (["-c", code], ["-m", "safegen", "--version"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.split()
        expected = [str(unpacked / "safegen" / "__init__.py"), "True"]
        assert lines in (expected, ["safegen", __version__])
