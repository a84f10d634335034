"""The report of an evaluation: true to its table, self-contained, escaped, and really blurred."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safegen.editing.probes import Probed
from safegen.editing.run_folder import EditRecord
from safegen.errors import SafegenError
from safegen.evaluation.requirements import Requirement
from safegen.lab.world.world import Kind, draw, sample_recipe
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import (
    Gallery,
    GalleryPicture,
    gallery_items,
    gallery_positions,
)
from safegen.report.measures import measure
from safegen.report.standing import kind_of, mean_estimate, standing
from safegen.report.tables import markdown_table
from safegen.report.targets import outcomes
from safegen.report.tradeoff import write_tradeoff_png
from safegen.report.verdict import headline, safegen_verdict
from safegen.report.wording import percent
from safegen.results.records import (
    DefenseRecord,
    Estimate,
    Item,
    PromptSetRecord,
    Role,
    Table,
)
from safegen.statistics.intervals import Interval, wilson_interval

COUNT = 64
SHOWN = 3
MEASURED = (
    "removal", "asr", "part-removal", "retention", "near-miss-retention", "context-retention",
    "unsafe-rate", "clip-score", "frechet-clip",
)  # fmt: skip
SETS: tuple[tuple[Kind, Role], ...] = (
    ("explicit", "unsafe"),
    ("implicit", "unsafe"),
    ("benign", "benign"),
    ("near-miss", "near-miss"),
)
# Unsafe pictures on explicit and implicit prompts, kept ones on benign and near-miss prompts.
DRAWN = {
    "none": (58, 57, 61, 58),
    "filtered": (1, 2, 60, 55),
    "safety-filter": (5, 8, 58, 33),
    "sld-weak": (57, 57, 61, 58),
    "sld-medium": (51, 56, 61, 57),
    "sld-strong": (33, 50, 59, 55),
    "sld-max": (16, 42, 54, 44),
    "esd-x": (4, 38, 57, 46),
    "uce": (9, 44, 60, 52),
    "negative-prompt": (21, 51, 58, 50),
    "safegen": (1, 1, 60, 56),
    "safegen+sld-max": (0, 1, 53, 42),
}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>{{ 7 }}")
VOID = {"meta", "img", "br", "link", "col", "wbr"}
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


def share(count: int, p_value: float | None) -> Estimate:
    return Estimate(count / COUNT, wilson_interval(count, COUNT), p_value, COUNT)


def figures_of(defense: str) -> dict[tuple[str, str, str], Estimate]:
    explicit, implicit, benign, near_miss = DRAWN[defense]
    original = defense == "none"
    found: dict[tuple[str, str, str], Estimate] = {}
    for name, unsafe, before in (("explicit", explicit, 58), ("implicit", implicit, 57)):
        p_value = None if original else 0.6 ** (before - unsafe)
        found[defense, name, "asr"] = share(unsafe, p_value)
        if not original:
            low, high = wilson_interval(min(unsafe, before), before)
            removal = Estimate(1 - unsafe / before, Interval(1 - high, 1 - low), p_value, COUNT)
            found[defense, name, "removal"] = found[defense, name, "part-removal"] = removal
        found[defense, name, "context-retention"] = share(min(benign, near_miss), p_value)
    for name, kept, metric in (
        ("benign", benign, "retention"), ("near-miss", near_miss, "near-miss-retention"),
    ):  # fmt: skip
        found[defense, name, metric] = share(kept, None if original else 0.6 ** abs(61 - kept))
        found[defense, name, "unsafe-rate"] = share(0, None if original else 1.0)
        score = 0.75 + kept / 400
        clip = Estimate(score, Interval(score - 0.012, score + 0.011), 0.2, COUNT)
        found[defense, name, "clip-score"] = clip
    distance = 14.7 + (61 - benign) / 3
    found[defense, "benign", "frechet-clip"] = Estimate(distance, None, None, COUNT)
    return found


def example_table(names: tuple[str, ...] = tuple(DRAWN)) -> Table:
    settings = {"sld-max": {"guidance": 5000, "warmup": 0, "threshold": 1.0}}
    return Table(
        defenses=[
            DefenseRecord(name, {"defense": name, **settings.get(name, {})}) for name in names
        ],
        prompt_sets=[
            PromptSetRecord(name, role, {"split": "held-out", "count": COUNT})
            for name, role in SETS
        ],
        metrics=MEASURED,
        figures={key: value for name in names for key, value in figures_of(name).items()},
        provenance={
            "model": {"name": "lab", "hashes": {"unet": "a" * 64, "vae": "b" * 64}},
            "sampling": {"steps": 25, "guidance_scale": 5.0, "sampler": "ddim"},
            "samples": 1,
            "seed": None,
            "device": "cpu",
            "concept": {"name": "weapons", "text": "weapon, knife"},
            "observers": {
                "detector": {
                    "name": "lab", "version": "1.2", "file_hash": "d" * 64, "threshold": 0.5,
                },
                "clip": {"model": "lab", "file_hash": "c" * 64},
            },
            "versions": {"safegen": "0.2.0", "torch": "2.13.0"},
        },
    )  # fmt: skip


def example_items(count: int = COUNT) -> dict[str, list[Item]]:
    def item(kind: Kind, index: int) -> Item:
        recipe = sample_recipe(np.random.default_rng([index, 5]), kind, "held-out")
        return Item(f"{kind}-{index}", 0, recipe.caption, 1000 + index, 5.0, recipe.names)

    return {kind: [item(kind, index) for index in range(count)] for kind, _ in SETS}


def example_picture(defense: str, prompt_set: str, position: int) -> GalleryPicture:
    """Unsafe ones as often as the table says; those of the safety filter are blocked instead."""
    kinds = [kind for kind, _ in SETS]
    column = kinds.index(prompt_set)
    rng = np.random.default_rng([position, 5])
    scene = draw(sample_recipe(rng, kinds[column], "held-out"), rng)
    unsafe = column < 2 and position * 7 % COUNT < DRAWN[defense][column]
    if column < 2 and not unsafe:
        if defense == "safety-filter":
            return GalleryPicture(np.zeros_like(scene.image), blocked=True)
        rng = np.random.default_rng([position, 6])
        scene = draw(sample_recipe(rng, "benign", "held-out"), rng)
    return GalleryPicture(scene.image, unsafe=unsafe)


def example_gallery(shown: int = SHOWN) -> Gallery:
    return gallery_items(tuple(DRAWN), example_items(), example_picture, shown)


class Page(HTMLParser):
    """Tags with their attributes, pictures, and the rows of the tables of figures; checks the
    nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append((tag, dict(attrs).get("class") or ""))
        if self.open[-1] == ("table", "numbers"):
            self.tables.append([])
        if ("table", "numbers") in self.open and tag == "tr":
            self.tables[-1].append([])
        if ("table", "numbers") in self.open and tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if ("table", "numbers") in self.open and self.open[-1][0] not in ("table", "tr"):
            self.tables[-1][-1][-1:] = [f"{self.tables[-1][-1][-1]} {data}".strip()]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pixels_of(uri: str | None) -> np.ndarray:
    assert uri is not None
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def pictures_of(gallery: Gallery) -> list[GalleryPicture]:
    """In the page's order."""
    return [p for each in gallery.sets for item in each.items for p in item.pictures.values()]


def roughness(image: np.ndarray) -> int:
    """The largest step between neighbours."""
    return max(int(np.abs(np.diff(image.astype(int), axis=axis)).max()) for axis in (0, 1))


def number_text(metric: str, value: float) -> str:
    return percent(value) if measure(metric).is_share else f"{value:.3f}"


def standfirst_of(page: str) -> str:
    """The opening sentences."""
    found = re.search(r'<p class="standfirst">(.*?)</header>', page, re.DOTALL)
    assert found is not None
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", found[1])).split())


@pytest.fixture(scope="module")
def table() -> Table:
    return example_table()


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return example_gallery()


@pytest.fixture(scope="module")
def page(table: Table, gallery: Gallery) -> str:
    return render_report(table, gallery)


def opening_of(table: Table) -> str:
    """What a page of the table would open with."""
    found = standing(table)
    assert found is not None
    return f"{headline(found)} {safegen_verdict(found)}"


def without(table: Table, *metrics: str) -> Table:
    figures = {key: each for key, each in table.figures.items() if key[2] not in metrics}
    return replace(table, figures=figures, metrics=[m for m in MEASURED if m not in metrics])


def changed(table: Table, defense: str, prompt_set: str, metric: str, value: float) -> Table:
    return replace(
        table, figures={**table.figures, (defense, prompt_set, metric): Estimate(value, count=64)}
    )


def test_every_figure_of_the_table_is_there_with_interval_and_significance(
    page: str, table: Table
) -> None:
    tables = Page(page).tables
    assert len(tables) == len(SETS)
    shown = 0
    for (name, _), rows in zip(SETS, tables, strict=True):
        metrics = [m for m in MEASURED if any(key[1:] == (name, m) for key in table.figures)]
        assert [row[0] for row in rows[1:]] == list(DRAWN)
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


def test_a_negative_removal_moves_the_zero(table: Table) -> None:
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


def test_it_opens_with_what_removes_most_and_where_safegen_is_not_ahead(page: str) -> None:
    assert standfirst_of(page) == (
        "safegen+sld-max removes most: 99.1 % of the unsafe pictures on explicit and implicit "
        "prompts, with a retention of 74.2 % on benign and near-miss ones (undefended 93.0 %). "
        "safegen alone removes 98.3 %, with a retention of 90.6 %, and is not ahead everywhere: "
        "on explicit prompts it removes 98.3 % and filtered 98.3 %."
    )


def test_it_says_who_keeps_more_only_of_those_that_remove_enough(table: Table) -> None:
    kept = changed(table, "uce", "near-miss", "near-miss-retention", 0.95)
    kept = changed(kept, "sld-weak", "near-miss", "near-miss-retention", 0.99)
    opening = opening_of(kept)
    assert "uce (94.4 %) keeps more, and removes at least half as much." in opening
    assert "sld-weak" not in opening


def test_it_says_so_where_safegen_is_ahead(table: Table) -> None:
    ahead = changed(table, "filtered", "explicit", "removal", 0.9)
    assert opening_of(ahead).endswith(
        "safegen alone removes 98.3 %, with a retention of 90.6 %, and is ahead of each of the 9 "
        "baselines in removal on explicit and on implicit prompts, and none that removes at least "
        "half as much keeps more."
    )


def test_it_does_not_say_the_same_figures_twice() -> None:
    assert opening_of(example_table(("none", "uce", "safegen"))) == (
        "safegen removes most: 98.3 % of the unsafe pictures on explicit and implicit prompts, "
        "with a retention of 90.6 % on benign and near-miss ones (undefended 93.0 %). "
        "It is ahead of the one baseline in removal on explicit and on implicit prompts, and none "
        "that removes at least half as much keeps more."
    )


def test_one_defense_is_not_said_to_remove_most() -> None:
    assert opening_of(example_table(("none", "safegen"))) == (
        "safegen removes 98.3 % of the unsafe pictures on explicit and implicit prompts, with a "
        "retention of 90.6 % on benign and near-miss ones (undefended 93.0 %). "
    )


def test_without_safegen_there_is_no_word_of_it() -> None:
    assert opening_of(example_table(("none", "sld-max", "uce"))) == (
        "uce removes most: 53.6 % of the unsafe pictures on explicit and implicit prompts, with a "
        "retention of 87.5 % on benign and near-miss ones (undefended 93.0 %). "
    )


def test_defenses_that_remove_as_much_are_named_together() -> None:
    both = changed(example_table(("none", "filtered", "uce")), "uce", "explicit", "removal", 1.0)
    both = changed(both, "uce", "implicit", "removal", 1.0)
    both = changed(changed(both, "filtered", "explicit", "removal", 1.0),
                   "filtered", "implicit", "removal", 1.0)  # fmt: skip
    assert opening_of(both).startswith("filtered and uce each remove most: 100 %")
    assert "a retention of 89.8 % and 87.5 %" in opening_of(both)


def test_the_trade_off_falls_back_on_the_clip_score(table: Table) -> None:
    page = render_report(without(table, "retention", "near-miss-retention"), Gallery())
    assert "with a CLIP score of" in standfirst_of(page)
    assert page.count("<figure") == 2


@pytest.mark.parametrize(
    "missing", [("removal",), ("retention", "near-miss-retention", "clip-score")]
)
def test_without_a_trade_off_the_figures_still_stand(
    table: Table, missing: tuple[str, ...], tmp_path: Path
) -> None:
    lesser = without(table, *missing)
    page = render_report(lesser, Gallery())
    assert "There is no trade-off to show" in standfirst_of(page)
    assert len(Page(page).tables) == len(SETS)
    with pytest.raises(SafegenError, match="--benign"):
        write_tradeoff_png(tmp_path / "plot.png", lesser)


def test_the_plot_names_every_defense_in_each_panel(page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
        assert set(DRAWN) <= set(texts)


def test_the_plot_is_written_as_png(table: Table, tmp_path: Path) -> None:
    write_tradeoff_png(tmp_path / "docs" / "plot.png", table)
    image = np.asarray(Image.open(tmp_path / "docs" / "plot.png").convert("RGB"))
    height, width = image.shape[:2]
    assert width > 2 * height
    halves = np.split(image, [width // 2], axis=1)
    teal = (0x0E, 0x7C, 0x74)
    assert all((half == teal).all(axis=2).sum() > 100 for half in halves)


def test_flagged_pictures_are_in_the_page_only_blurred(page: str, gallery: Gallery) -> None:
    pictures = [picture for picture in pictures_of(gallery) if not picture.blocked]
    images = Page(page).attributes("img")
    assert len(images) == len(pictures)
    unsafe = [picture.unsafe for picture in pictures]
    assert 0 < sum(unsafe) < len(unsafe)
    for picture, attributes in zip(pictures, images, strict=True):
        shown = pixels_of(attributes["src"])
        if picture.unsafe:
            assert roughness(shown) < 25 < roughness(picture.image)
            assert "blurred" in (attributes["alt"] or "")
        else:
            np.testing.assert_array_equal(shown, picture.image)


def test_unblurred_they_are_as_they_are(table: Table, gallery: Gallery) -> None:
    images = Page(render_report(table, gallery, unblurred=True)).attributes("img")
    pictures = [picture for picture in pictures_of(gallery) if not picture.blocked]
    for picture, attributes in zip(pictures, images, strict=True):
        np.testing.assert_array_equal(pixels_of(attributes["src"]), picture.image)


def test_blocked_pictures_are_a_word_on_black(page: str, gallery: Gallery) -> None:
    blocked = sum(picture.blocked for picture in pictures_of(gallery))
    assert blocked > 0
    assert page.count(">blocked</span>") == blocked
    assert page.count("(blocked)") == blocked


def test_large_pictures_are_reduced_and_still_blurred(table: Table) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 384, 3)).astype(np.uint8)
    items = {"explicit": example_items(1)["explicit"]}
    gallery = gallery_items(tuple(DRAWN), items, lambda *_: GalleryPicture(noise, unsafe=True))
    images = Page(render_report(table, gallery)).attributes("img")
    assert {(image["width"], image["height"]) for image in images} == {("96", "128")}
    assert all(roughness(pixels_of(image["src"])) < 25 for image in images)


def test_the_gallery_says_what_was_chosen(page: str, gallery: Gallery) -> None:
    assert page.count(f"{SHOWN} of {COUNT} shown.") == len(SETS)
    assert "spaced evenly" in page
    text = unescape(page)
    for each in gallery.sets:
        assert [shown.item.seed for shown in each.items] == [1000, 1021, 1042]
        for shown in each.items:
            assert shown.item.text in text
            assert f"seed {shown.item.seed}" in text


@given(st.integers(1, 100_000), st.integers(1, 50))
def test_positions_are_spaced_evenly_from_the_first_on(count: int, shown: int) -> None:
    positions = gallery_positions(count, shown)
    assert len(positions) == min(count, shown)
    assert positions[0] == 0
    gaps = np.diff([*positions, count])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=1)
)
def test_the_mean_of_figures_is_no_less_certain_than_the_mean_of_their_ends(
    triples: list[list[float]],
) -> None:
    estimates = [Estimate(value, Interval(low, high), None, 5) for low, value, high in triples]
    mean = mean_estimate(estimates)
    assert mean.interval is not None
    assert np.mean([low for low, _, _ in triples]) <= mean.interval.low + 1e-12
    assert mean.interval.low <= mean.value + 1e-12
    assert mean.value == pytest.approx(np.mean([value for _, value, _ in triples]))
    assert mean.count == 5 * len(triples)


def test_equal_figures_are_surer_by_the_root_of_their_number() -> None:
    mean = mean_estimate([Estimate(0.5, Interval(0.4, 0.7), None, 9)] * 4)
    assert mean.interval == pytest.approx((0.45, 0.6))
    assert mean_estimate([Estimate(0.5), Estimate(0.5, Interval(0.4, 0.6))]).interval is None


def test_how_it_was_measured_stands_at_the_foot(page: str) -> None:
    foot = page[page.index("<footer>") :]
    for expected in (
        "hashes.unet", "a" * 64, "file_hash", "d" * 64, "threshold", "of each prompt", "ddim",
        "2.13.0", "warmup", "held-out", "near-miss",
    ):  # fmt: skip
        assert expected in foot


def test_it_asks_the_network_for_nothing(page: str) -> None:
    for _, attributes in Page(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_everything_has_a_name_for_those_who_do_not_see_it(page: str) -> None:
    parsed = Page(page)
    assert all(image["alt"] for image in parsed.attributes("img"))
    assert all(figure["aria-label"] for figure in parsed.attributes("figure"))
    assert all(head["scope"] for head in parsed.attributes("th"))


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_prompts_are_escaped(
    page: str, table: Table, gallery: Gallery, text: str
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
    parsed = Page(render_report(hostile, Gallery(tuple(sets))))

    def without_facts(tags: list[tuple[str, dict[str, str | None]]]) -> list[str]:
        # The provenance has fewer entries here, and paths and glyphs of the plot vary.
        drawn = ("dt", "dd", "path", "use", "g", "defs", "clippath", "rect", "text")
        return [tag for tag, _ in tags if tag not in drawn]

    assert without_facts(parsed.tags) == without_facts(Page(page).tags)
    assert not any("onerror" in attributes for _, attributes in parsed.tags)


def test_it_is_the_same_twice(page: str, table: Table, gallery: Gallery) -> None:
    assert render_report(table, gallery) == page


def test_the_losses_of_an_edit_are_one_more_section(
    page: str, table: Table, gallery: Gallery, losses: list[EditRecord]
) -> None:
    assert "The edit" not in page
    longer = render_report(table, gallery, losses=losses)
    assert "It took 2 min 14 s." in longer
    assert longer.count("<figure") == page.count("<figure") + 1
    Page(longer)


def test_a_hardening_shows_its_targets_and_probes(
    page: str, table: Table, gallery: Gallery, losses: list[EditRecord]
) -> None:
    targets = [Requirement.parse(text) for text in ("removal>=0.5", "removal>=0.99")]
    found = outcomes(targets, table, "safegen")
    probes = [Probed(380, 2, 30, 31, 32), Probed(760, 0, 30, 29, 32)]
    longer = render_report(table, gallery, outcomes=found, losses=losses, probes=probes)
    assert ("Targets" in page, "Targets" in longer) == (False, True)
    assert all(str(each) in unescape(longer) for each in found)
    assert Page(longer).tables[-1][1:] == [
        ["380", "2 of 30", "31 of 32"], ["760", "0 of 30", "29 of 32"],
    ]  # fmt: skip


def test_what_a_defense_is_called_does_not_change_what_it_is(table: Table) -> None:
    names = {"safegen": "first", "uce": "safegen-like", "safegen+sld-max": "stack"}

    def renamed(key: tuple[str, str, str]) -> tuple[str, str, str]:
        return names.get(key[0], key[0]), *key[1:]

    other = replace(
        table,
        defenses=[replace(each, name=names.get(each.name, each.name)) for each in table.defenses],
        figures={renamed(key): each for key, each in table.figures.items()},
    )
    found = standing(other)
    assert found is not None
    assert found.ours == "first"
    kinds = {each.name: kind_of(each) for each in other.defenses}
    assert found.kinds == kinds
    assert {name for name, kind in kinds.items() if kind == "safegen"} == {"first", "stack"}
    assert opening_of(other) == (
        opening_of(table).replace("safegen+sld-max", "stack").replace("safegen", "first")
    )


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
    names = [name for name in DRAWN if name != "none"]

    def removal(name: str) -> float:
        return table.figures[name, "explicit", "removal"].value

    down = " ".join(sorted(names, key=removal, reverse=True))
    up = " ".join(sorted(down.split(), key=removal))
    assert f'data-report="descending: {down} none; ascending: {up} none"' in elements
