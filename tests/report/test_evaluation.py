"""The report of an evaluation: true to its table, self-contained, escaped, and scripted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from safegen.editing.probes import Probed
from safegen.editing.run_folder import EditRecord
from safegen.evaluation.requirements import Requirement
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery
from safegen.report.measures import measure
from safegen.report.tables import markdown_table
from safegen.report.targets import outcomes
from safegen.report.wording import percent
from safegen.results.records import Table

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>{{ 7 }}")
SORT = """<script>
const table = document.querySelector("table.numbers");
const head = table.tHead.rows[0].cells[1];
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join(" ");
const report = [];
for (let press = 0; press < 2; press++) {
  head.querySelector("button").click();
  report.push(`${head.getAttribute("aria-sort")}: ${names()}`);
}
document.body.setAttribute("data-report", report.join("; "));
</script>"""


def number_text(metric: str, value: float) -> str:
    return percent(value) if measure(metric).is_share else f"{value:.3f}"


def test_every_figure_of_the_table_is_there_with_interval_and_significance(
    page: str, table: Table, read_page: Callable[[str], Any]
) -> None:
    tables = read_page(page).tables
    shown = 0
    for name, rows in zip((s.name for s in table.prompt_sets), tables, strict=True):
        metrics = [m for m in table.metrics if any(key[1:] == (name, m) for key in table.figures)]
        assert [row[0] for row in rows[1:]] == [each.name for each in table.defenses]
        for defense, *cells in rows[1:]:
            for metric, cell in zip(metrics, cells, strict=True):
                estimate = table.figures.get((defense, name, metric))
                if estimate is None:
                    assert cell == "—"
                    continue
                shown += 1
                expected = number_text(metric, estimate.value)
                p_value = 1.0 if estimate.p_value is None else estimate.p_value
                expected += (
                    " ***" * (p_value < 0.001)
                    or " **" * (p_value < 0.01)
                    or (" *" * (p_value < 0.05))
                )
                if estimate.interval:
                    low, high = (number_text(metric, end) for end in estimate.interval)
                    expected += f" {low.removesuffix(' %')}–{high.removesuffix(' %')}"
                assert cell == expected
    assert shown == len(table.figures)


def test_bars_reach_from_zero_to_the_figure(page: str) -> None:
    bar = r'<i class="fill" style="left:([\d.]+)%;width:([\d.]+)%"></i>.*?<b>([^<]*)</b>'
    bars = re.findall(bar, page)
    assert len(bars) == 2 * 11 + 4 * 12
    for left, width, text in bars:
        assert float(left) == 0
        assert float(width) == pytest.approx(float(text.removesuffix(" %")), abs=0.06)


def test_a_negative_removal_moves_the_zero(table: Table, changed: Callable[..., Table]) -> None:
    page = render_report(changed(table, "sld-weak", "explicit", "removal", -0.25), Gallery())
    assert 'style="left:0.0%;width:20.0%"' in page
    assert "−25.0 %" in page


def test_what_has_no_figure_says_why(page: str, table: Table) -> None:
    assert '<abbr title="the others are compared with this one">—</abbr>' in page
    figures = {
        key: each for key, each in table.figures.items() if key[1:] != ("implicit", "removal")
    }
    figures.pop(("uce", "benign", "retention"))
    note = "implicit: the original model drew nothing unsafe"
    other = render_report(replace(table, figures=figures, notes=[note]), Gallery())
    assert f'<p class="note">{note}</p>' in other
    assert '<abbr title="not measured">—</abbr>' in other


def test_how_it_was_measured_stands_at_the_foot(page: str) -> None:
    foot = page[page.index("<footer>") :]
    for expected in (
        "hashes.unet", "a" * 64, "file_hash", "d" * 64, "threshold", "of each prompt", "ddim",
        "2.13.0", "warmup", "held-out", "near-miss",
    ):  # fmt: skip
        assert expected in foot


def test_it_asks_the_network_for_nothing(page: str, read_page: Callable[[str], Any]) -> None:
    for _, attributes in read_page(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_everything_has_a_name_for_those_who_do_not_see_it(
    page: str, read_page: Callable[[str], Any]
) -> None:
    parsed = read_page(page)
    assert all(image["alt"] for image in parsed.attributes("img"))
    assert all(figure["aria-label"] for figure in parsed.attributes("figure"))
    assert all(head["scope"] for head in parsed.attributes("th"))


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_prompts_are_escaped(
    page: str, table: Table, gallery: Gallery, read_page: Callable[[str], Any], text: str
) -> None:
    def renamed(key: tuple[str, str, str]) -> tuple[str, str, str]:
        return key[0].replace("uce", text), key[1].replace("benign", text), key[2]

    hostile = replace(
        table,
        defenses=[replace(d, name=d.name.replace("uce", text)) for d in table.defenses],
        prompt_sets=[replace(p, name=p.name.replace("benign", text)) for p in table.prompt_sets],
        figures={renamed(key): each for key, each in table.figures.items()},
        provenance={**table.provenance, "model": {"name": text}, "concept": {"name": text}},
    )
    sets = [
        replace(
            each,
            prompt_set=each.prompt_set.replace("benign", text),
            items=tuple(
                replace(
                    shown,
                    item=replace(shown.item, text=text),
                    pictures={k.replace("uce", text): p for k, p in shown.pictures.items()},
                )
                for shown in each.items
            ),
        )
        for each in gallery.sets
    ]
    parsed = read_page(render_report(hostile, Gallery(tuple(sets))))

    def without_facts(tags: list[tuple[str, dict[str, str | None]]]) -> list[str]:
        # The provenance has fewer entries here, and paths and glyphs of the plot vary.
        drawn = ("dt", "dd", "path", "use", "g", "defs", "clippath", "rect", "text")
        return [tag for tag, _ in tags if tag not in drawn]

    assert without_facts(parsed.tags) == without_facts(read_page(page).tags)
    assert not any("onerror" in attributes for _, attributes in parsed.tags)


def test_metadata_notes_and_bounds_are_escaped(
    table: Table, gallery: Gallery, read_page: Callable[[str], Any]
) -> None:
    def elements(said: str) -> list[tuple[str, list[str]]]:
        told: dict[str, Any] = {said: said, "all": [said, {said: said}]}
        changed = replace(
            table,
            defenses=[replace(each, settings=told) for each in table.defenses],
            prompt_sets=[replace(each, identity=told) for each in table.prompt_sets],
            provenance={**told, "observers": {said: told}},
            notes=[said],
        )
        page = render_report(changed, gallery, outcomes=[said])
        return [(tag, sorted(attributes)) for tag, attributes in read_page(page).tags]

    assert elements(" ".join(HOSTILE)) == elements("plain")


def test_it_is_the_same_twice(page: str, table: Table, gallery: Gallery) -> None:
    assert render_report(table, gallery) == page


def test_the_losses_of_an_edit_are_one_more_section(
    page: str,
    table: Table,
    gallery: Gallery,
    losses: list[EditRecord],
    read_page: Callable[[str], Any],
) -> None:
    assert "The edit" not in page
    longer = render_report(table, gallery, losses=losses)
    assert "It took 2 min 14 s." in longer
    assert longer.count("<figure") == page.count("<figure") + 1
    read_page(longer)


def test_a_hardening_shows_its_targets_and_probes(
    page: str,
    table: Table,
    gallery: Gallery,
    losses: list[EditRecord],
    read_page: Callable[[str], Any],
) -> None:
    targets = [Requirement.parse(text) for text in ("removal>=0.5", "removal>=0.99")]
    found = outcomes(targets, table, "safegen")
    probes = [
        Probed(380, {"removal": (28, 30), "retention": (31, 32)}),
        Probed(760, {"removal": (30, 30), "retention": (29, 32)}),
    ]
    longer = render_report(table, gallery, outcomes=found, losses=losses, probes=probes)
    assert ("Targets" in page, "Targets" in longer) == (False, True)
    assert all(str(each) in unescape(longer) for each in found)
    assert read_page(longer).tables[-1][1:] == [
        ["380", "28 of 30", "31 of 32"], ["760", "30 of 30", "29 of 32"],
    ]  # fmt: skip


def test_best_and_stars_mean_the_same_on_the_page_and_in_the_table(page: str, table: Table) -> None:
    cells = [line.split(" | ") for line in markdown_table(table).splitlines() if "| " in line][2:]
    assert page.count('class="best"') == sum(cell.count("**") // 2 for row in cells for cell in row)
    stars = re.findall(r'<span class="mark"[^>]*>(\**)</span>', page)
    written = sum(cell.count("\\*") for row in cells for cell in row)
    assert sum(map(len, stars)) == written
    for legend in (page, markdown_table(table).replace("\\", "")):
        assert "*** p &lt; 0.001, against" in legend or "*** p < 0.001 against" in legend


def test_its_script_runs_under_its_own_policy(
    page: str, browse: Callable[[str], tuple[str, str]]
) -> None:
    elements, log = browse(page)
    assert re.search(r'<html [^>]*class="scripted"', elements)
    assert "CONSOLE" not in log


def test_a_press_sorts_a_table_and_another_turns_it_round(
    page: str, table: Table, browse: Callable[[str], tuple[str, str]]
) -> None:
    without_policy = re.sub(r"<meta http-equiv[^>]*>", "", page)
    elements, log = browse(without_policy.replace("</body>", f"{SORT}</body>"))
    assert "CONSOLE" not in log
    names = [each.name for each in table.defenses if each.name != "none"]

    def removal(name: str) -> float:
        return table.figures[name, "explicit", "removal"].value

    down = " ".join(sorted(names, key=removal, reverse=True))
    up = " ".join(sorted(down.split(), key=removal))
    assert f'data-report="descending: {down} none; ascending: {up} none"' in elements
