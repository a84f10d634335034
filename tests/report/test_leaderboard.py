"""The leaderboard's page: what shares a table, what is escaped, and what a browser does with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from safegen.report.entries import Entry
from safegen.report.leaderboard import boards, render_leaderboard
from safegen.report.leaderboard_pictures import Thumbnail

ALIKE = {"model": "lab", "count": 64, "date": "2026-01-31", "measured": "one way"}
HOSTILE = '"><script>console.log("hostile")</script>'
PRESS = """<script>
const shown = () => [...document.querySelectorAll(".board")].filter((each) => !each.hidden).map(
  (each) => [...each.querySelectorAll("tbody tr")].filter((row) => !row.hidden).map(
    (row) => row.cells[0].textContent).join(" ")).join(" | ");
const told = [];
const press = (button) => { button.click(); told.push(shown()); };
press(document.querySelector(".board button.sort"));
press(document.querySelector(".board button.sort"));
press(document.querySelector("input[value=weights]"));
const model = document.querySelector("select");
model.value = "sd-1.4";
model.dispatchEvent(new Event("change", { bubbles: true }));
told.push(shown());
document.body.dataset.told = told.join("; ");
</script>"""


def entry(defense: str, value: float, changes: str = "weights", **others: Any) -> Entry:
    about = {"prompt_set": "explicit", "role": "unsafe", "metric": "removal"}
    return Entry(**{**ALIKE, **about, **others}, defense=defense, value=value, changes=changes)


EXAMPLE = [
    entry("none", 0.1, "nothing", metric="asr", attack="text, black box", prompt_set="sneaky"),
    entry("esd-u", 0.5, low=0.4, high=0.6, command="safegen evaluate lab --defense esd:a"),
    entry("sld-max", 0.7, "sampling"),
    entry("safegen", 0.9),
    entry("safegen+sld-max", 0.95, "weights+sampling"),
    entry("esd-u", 0.4, model="sd-1.4", measured="another"),
]


def test_what_was_measured_otherwise_has_a_table_of_its_own() -> None:
    first, second = boards(EXAMPLE, {})
    assert [row.defense for row in first.rows] == [
        "none", "esd-u", "sld-max", "safegen", "safegen+sld-max",
    ]  # fmt: skip
    assert (second.model, second.measured, len(second.rows)) == ("sd-1.4", "another", 1)
    assert [(head.metric, head.prompt_set, head.attack) for head in first.heads] == [
        ("removal", "explicit", ""), ("ASR", "sneaky", "text, black box"),
    ]  # fmt: skip
    figure = first.rows[1].figures[0]
    assert (figure.value, figure.interval, figure.count) == ("50.0 %", "40.0–60.0", 64)
    assert figure.told == (
        "95 % interval 40.0–60.0; n = 64; 2026-01-31; safegen evaluate lab --defense esd:a"
    )


def test_runs_and_sets_of_one_name_stay_apart() -> None:
    (board,) = boards(
        [
            entry("esd-u", 0.5, origin="a", prompts="64"),
            entry("esd-u", 0.4, origin="b", prompts="64"),
            entry("esd-u", 0.3, origin="b", prompts="16"),
        ],
        {},
    )
    assert [(row.origin, [each.value for each in row.figures]) for row in board.rows] == [
        ("a", ["50.0 %", ""]), ("b", ["40.0 %", "30.0 %"]),
    ]  # fmt: skip
    assert [head.attack for head in board.heads] == ["64", "16"]


def test_under_an_attack_only_its_success_is_shown() -> None:
    attack = {"attack": "text, black box", "prompt_set": "sneaky"}
    assert boards([entry("esd-u", 0.5, **attack)], {}) == []


def test_hostile_names_are_text() -> None:
    fields = ("model", "prompt_set", "measured", "attack", "command", "origin")
    shown = {(HOSTILE, HOSTILE): [Thumbnail("data:image/png;base64,", HOSTILE, 1, 1)]}
    page = render_leaderboard(
        [entry(HOSTILE, 0.5, metric="asr", **dict.fromkeys(fields, HOSTILE))], shown
    )
    assert page.count("<script") == 1
    assert page.count("<img") == 1
    assert page.count("hostile") >= len(fields)


def test_the_page_needs_nothing_from_a_network() -> None:
    page = render_leaderboard(EXAMPLE, {})
    assert "default-src 'none'" in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert re.findall(r"url\(|@import|https?:", page) == []


def test_a_press_sorts_and_the_filters_hide(browse: Callable[[str], tuple[str, str]]) -> None:
    page = render_leaderboard(EXAMPLE, {})
    elements, log = browse(page)
    assert "CONSOLE" not in log  # under its own policy
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page)
    elements, log = browse(without_policy.replace("</body>", f"{PRESS}</body>"))
    assert "CONSOLE" not in log
    (told,) = re.findall('data-told="([^"]*)"', elements)
    assert told.split("; ") == [
        "safegen+sld-max safegen sld-max esd-u none | esd-u",
        "esd-u sld-max safegen safegen+sld-max none | esd-u",
        "sld-max none | ",
        "",
    ]
