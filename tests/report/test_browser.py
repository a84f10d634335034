"""The page in a real browser, where one is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from safegen.report.html import render_report
from safegen.report.records import BenignFeatures, PromptSetResult, RunFacts
from safegen.report.summary import build_summary

BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

PRESS = """<script>
const pressed = () => document.querySelectorAll('button.blurred[aria-pressed="true"]').length;
const first = document.querySelector("button.blurred");
const sharpness = () => getComputedStyle(first.querySelector("img")).filter;
const report = [pressed(), sharpness() !== "none"];
first.style.transition = first.querySelector("img").style.transition = "none";
first.click();
report.push(pressed(), sharpness() !== "none");
first.click();
report.push(pressed());
document.querySelector("#every").click();
report.push(pressed() === document.querySelectorAll("button.blurred").length);
document.body.setAttribute("data-report", report.join(" "));
</script>"""


@pytest.fixture(scope="module")
def page(facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures) -> str:
    return render_report(build_summary(facts, prompt_sets, features), facts, prompt_sets)


def browse(page: str, folder: Path) -> tuple[str, str]:
    """The page's elements after its scripts ran, and what the browser logged."""
    assert BROWSER is not None
    path = folder / "page.html"
    path.write_text(page)
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync"
    flags = f"headless no-sandbox disable-gpu {quiet} enable-logging=stderr dump-dom".split()
    command = [BROWSER, f"--user-data-dir={folder / 'user'}", *(f"--{flag}" for flag in flags)]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, done.stderr


def test_the_script_runs_under_the_pages_own_policy(page: str, tmp_path: Path) -> None:
    elements, log = browse(page, tmp_path)
    assert re.search(r'<html [^>]*class="scripted"', elements)
    assert "CONSOLE" not in log


def test_pictures_stay_blurred_until_pressed(page: str, tmp_path: Path) -> None:
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page)
    elements, log = browse(without_policy.replace("</body>", f"{PRESS}</body>"), tmp_path)
    assert "CONSOLE" not in log
    assert 'data-report="0 true 1 false 0 true"' in elements
