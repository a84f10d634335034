"""An example evaluation and its page, the records of an edit, and a browser, if there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from safegen.editing.run_folder import EditRecord
from safegen.lab.world.world import Kind, draw, sample_recipe
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery, GalleryPicture, gallery_items
from safegen.results.records import DefenseRecord, Estimate, Item, PromptSetRecord, Role, Table
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
VOID = {"meta", "img", "br", "link", "col", "wbr"}


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


class Page(HTMLParser):
    """Tags with their attributes, the rows of the tables of figures, and the opening sentences;
    checks the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open
        found = re.search(r'<p class="standfirst">(.*?)</header>', text, re.DOTALL)
        assert found is not None
        self.standfirst = " ".join(unescape(re.sub(r"<[^>]*>", " ", found[1])).split())

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


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Table]:
    """Builds the example's table, of some of its defenses."""
    return example_table


@pytest.fixture(scope="session")
def changed() -> Callable[[Table, str, str, str, float], Table]:
    """Changes one figure of a table, named by defense, prompt set and metric."""

    def change(table: Table, defense: str, prompt_set: str, metric: str, value: float) -> Table:
        figures = {**table.figures, (defense, prompt_set, metric): Estimate(value, count=COUNT)}
        return replace(table, figures=figures)

    return change


@pytest.fixture(scope="session")
def table() -> Table:
    """The example's table."""
    return example_table()


@pytest.fixture(scope="session")
def gallery() -> Gallery:
    """The example's pictures, three of the 64 of each prompt set."""
    return gallery_items(tuple(DRAWN), example_items(), example_picture, SHOWN)


@pytest.fixture(scope="session")
def page(table: Table, gallery: Gallery) -> str:
    """The example's report."""
    return render_report(table, gallery)


@pytest.fixture(scope="session")
def read_page() -> type[Page]:
    """Reads a page of a report."""
    return Page


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
