"""Which code runs, as a checkout or an installation tells it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safegen import version

TELL = """
import json, sys
from safegen.version import code_name, code_revision
assert "torch" not in sys.modules
print(json.dumps([code_revision(), code_name(code_revision())]))
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def told(site: Path) -> tuple[dict[str, Any], str]:
    """What a fresh process says that finds the package in a folder."""
    command = [sys.executable, "-c", TELL]
    env = {"PYTHONPATH": str(site)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    revision, name = json.loads(done.stdout)
    return revision, name


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a package of safegen's name, which says its version as ours does."""
    package = tmp_path / "site" / "safegen"
    (package / "report").mkdir(parents=True)
    for name in ("__init__.py", "drawing.py", "report/page.py"):
        (package / name).write_text("")
    shutil.copy(str(version.__file__), package / "version.py")
    return package.parent


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_tells_its_commit_and_whether_it_was_changed(site: Path) -> None:
    git(site.parent, "init", "-q")
    (site.parent / "notes").write_text("")
    git(site.parent, "add", "notes")
    git(site.parent, "commit", "-qm", "an environment in somebody else's checkout")
    alone, name = told(site)
    assert (alone["revision"], alone["dirty"]) == (None, None)
    assert name == f"{version.__version__}+{alone['source'][:8]}"
    git(site.parent, "add", ".")
    git(site.parent, "commit", "-qm", "one")
    clean, name = told(site)
    assert clean == {**alone, "revision": git(site.parent, "rev-parse", "HEAD"), "dirty": False}
    assert name == f"{version.__version__}+g{clean['revision'][:8]}"
    (site / "safegen" / "report" / "page.py").write_text("1")
    assert told(site)[0] == {**clean, "dirty": True}  # results do not depend on the report
    (site / "safegen" / "drawing.py").write_text("1")
    changed, name = told(site)
    assert changed["source"] != clean["source"]
    assert name.endswith(f".dirty.{changed['source'][:8]}")


@pytest.mark.parametrize("url", [{"vcs_info": {"commit_id": "ab12cd34ef"}}, {"archive_info": {}}])
def test_an_installation_tells_what_it_was_made_from(site: Path, url: dict[str, Any]) -> None:
    info = site / "safegen-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: safegen\nVersion: 0.1.0\n")
    (info / "direct_url.json").write_text(json.dumps(url))
    expected = ("ab12cd34ef", False) if "vcs_info" in url else (None, None)
    revision, _ = told(site)
    assert (revision["revision"], revision["dirty"]) == expected
