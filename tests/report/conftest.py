"""The records of an edit, and a real browser, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from safegen.editing.run_folder import EditRecord


@pytest.fixture(scope="session")
def losses() -> list[EditRecord]:
    """An edit of 40 steps in 134 seconds."""
    return [
        EditRecord(n, 40, 0.6 / n, 0.5 / n, 0.1 / n, 1e-3, 1.0, 3.36 * n, 134.4 - 3.36 * n)
        for n in range(1, 41)
    ]


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """Opens a page in a real browser: its elements after its scripts ran, and what was logged."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    flags = f"headless no-sandbox disable-gpu {quiet} enable-logging=stderr dump-dom".split()
    command = [browser, f"--user-data-dir={tmp_path / 'user'}", *(f"--{flag}" for flag in flags)]

    def opened(page: str) -> tuple[str, str]:
        path = tmp_path / "page.html"
        path.write_text(page)
        done = subprocess.run(
            [*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout, done.stderr

    return opened
