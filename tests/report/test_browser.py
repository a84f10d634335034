"""The page in a real browser, where one is installed."""

import re
from collections.abc import Callable

import pytest

from safegen.report.html import render_report
from safegen.report.records import BenignFeatures, PromptSetResult, RunFacts
from safegen.report.summary import build_summary

Browse = Callable[[str], tuple[str, str]]

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


def test_the_script_runs_under_the_pages_own_policy(page: str, browse: Browse) -> None:
    elements, log = browse(page)
    assert re.search(r'<html [^>]*class="scripted"', elements)
    assert "CONSOLE" not in log


def test_pictures_stay_blurred_until_pressed(page: str, browse: Browse) -> None:
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page)
    elements, log = browse(without_policy.replace("</body>", f"{PRESS}</body>"))
    assert "CONSOLE" not in log
    assert 'data-report="0 true 1 false 0 true"' in elements
