"""The page: complete, self-contained, escaped, and blurred where it has to be."""

import base64
import io
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.report.html import render_report, write_report
from safegen.report.records import BenignFeatures, Comparison, PromptSetResult, RunFacts
from safegen.report.summary import build_summary

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Collects tags with their attributes and the tags open around them; checks the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None], list[dict[str, str | None]]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), [attributes for _, attributes in self.open]))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), [attributes for _, attributes in self.open]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def images(self) -> list[tuple[dict[str, str | None], bool]]:
        """Pictures, and whether each is inside something blurred."""
        return [
            (attributes, any("blurred" in (a.get("class") or "").split() for a in around))
            for tag, attributes, around in self.tags
            if tag == "img"
        ]


def render(
    facts: RunFacts,
    sets: list[PromptSetResult],
    features: BenignFeatures | None = None,
    cap: int = 24,
) -> str:
    return render_report(build_summary(facts, sets, features), facts, sets, cap)


@pytest.fixture(scope="module")
def page(facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures) -> str:
    return render(facts, prompt_sets, features)


def with_prompt(prompt_sets: list[PromptSetResult], prompt: str) -> list[PromptSetResult]:
    first = replace(prompt_sets[0].comparisons[0], prompt=prompt)
    changed = replace(prompt_sets[0], comparisons=(first, *prompt_sets[0].comparisons[1:]))
    return [changed, *prompt_sets[1:]]


def pixels_of(uri: str | None) -> bytes:
    assert uri is not None
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return Image.open(io.BytesIO(content)).convert("RGB").tobytes()


def all_pictures(sets: list[PromptSetResult]) -> list[tuple[bytes, bool]]:
    comparisons: list[Comparison] = [c for s in sets for c in s.comparisons]
    pictures = [p for c in comparisons for p in (c.original, c.hardened)]
    return [(picture.image.tobytes(), picture.unsafe) for picture in pictures]


def test_exactly_the_flagged_pictures_are_blurred(
    page: str, prompt_sets: list[PromptSetResult]
) -> None:
    shown = {(pixels_of(attributes["src"]), blurred) for attributes, blurred in Page(page).images()}
    assert shown == set(all_pictures(prompt_sets))
    assert sum(unsafe for _, unsafe in all_pictures(prompt_sets)) == 21


def test_blurred_pictures_are_named_buttons_that_start_hidden(page: str) -> None:
    parsed = Page(page)
    veils = [a for tag, a, _ in parsed.tags if tag == "button" and a.get("class") == "blurred"]
    assert veils
    assert {veil["aria-pressed"] for veil in veils} == {"false"}
    assert all(veil["aria-label"] for veil in veils)
    assert all(a["alt"] for a, blurred in parsed.images() if not blurred)


def test_it_asks_the_network_for_nothing(page: str) -> None:
    for _, attributes, _ in Page(page).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("prompt", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_prompts_are_escaped(
    page: str,
    facts: RunFacts,
    prompt_sets: list[PromptSetResult],
    features: BenignFeatures,
    prompt: str,
) -> None:
    plain = Page(page)
    hostile = Page(render(facts, with_prompt(prompt_sets, prompt), features))
    assert [tag for tag, _, _ in hostile.tags] == [tag for tag, _, _ in plain.tags]
    assert not any("onerror" in attributes for _, attributes, _ in hostile.tags)


def test_facts_and_descriptions_are_escaped(
    page: str, facts: RunFacts, prompt_sets: list[PromptSetResult], features: BenignFeatures
) -> None:
    hostile = replace(facts, model="<i>m</i>", concept="<i>c</i>", settings={"<i>": "<i>"})
    sets = [replace(prompt_sets[0], description="<i>"), *prompt_sets[1:]]
    tags = [[tag for tag, _, _ in Page(text).tags].count("i")
            for text in (page, render(hostile, sets, features))]  # fmt: skip
    assert tags[0] == tags[1]


def test_it_says_how_many_of_how_many_and_adds_the_failures(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    text = " ".join(render(facts, prompt_sets, cap=4).split())
    assert "the first 4 of 10 prompts, unselected, and 1 more that failed." in text
    assert "the first 4 of 10 prompts, unselected.</span>" in text
    assert "Flagged unsafe: 10 of 10 before, 1 after. Failed: 1." in text
    assert text.count("still unsafe") == 1
    assert text.count("lost: ") == sum(len(prompt_sets[3].comparisons[i].asked) for i in (0, 8))


def test_all_are_shown_where_they_fit(page: str, prompt_sets: list[PromptSetResult]) -> None:
    text = unescape(page)
    assert text.count("All 10 prompts are shown.") == 4
    for prompt_set in prompt_sets:
        for comparison in prompt_set.comparisons:
            assert f"seed {comparison.seed}" in text
            assert comparison.prompt in text


def test_headline_figures_settings_and_identities_are_there(page: str) -> None:
    for expected in (
        "90.0 %", "removed on explicit prompts", "still drawn, near-miss", "beside weapons",
        "2 min 14 s", "edit.mixture.empty", "d" * 64, "lab-objects", "tiny CLIP", "CLIP score",
        "prefers-color-scheme: dark", "image-rendering: pixelated",
    ):  # fmt: skip
        assert expected in page


def test_without_losses_and_features_it_still_stands(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    text = render(replace(facts, losses=(), classifier=None), prompt_sets)
    assert "redirect" not in text
    assert "CLIP score" not in text
    Page(text)


def test_one_unsafe_set_without_known_objects_is_enough(
    facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    unknown = tuple(replace(c, asked=(), unsafe_asked=()) for c in prompt_sets[0].comparisons)
    text = render(facts, [replace(prompt_sets[0], comparisons=unknown)])
    assert "still drawn" not in text
    Page(text)


def test_large_pictures_are_reduced(facts: RunFacts, prompt_sets: list[PromptSetResult]) -> None:
    comparison = prompt_sets[0].comparisons[0]
    large = np.kron(comparison.original.image, np.ones((8, 8, 1), np.uint8))
    big = replace(comparison, original=replace(comparison.original, image=large))
    page = Page(render(facts, [replace(prompt_sets[0], comparisons=(big,))]))
    assert page.images()[0][0]["width"] == "256"


def test_it_is_the_same_twice_and_written_whole(
    tmp_path: Path, facts: RunFacts, prompt_sets: list[PromptSetResult]
) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(path, build_summary(facts, prompt_sets), facts, prompt_sets)
    assert path.read_text() == render(facts, prompt_sets)
    assert list(path.parent.iterdir()) == [path]
