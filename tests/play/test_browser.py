"""The page in a real browser: a prompt is typed, pictures appear, and the blur holds."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safegen.play.drawing import Easel, Wish
from safegen.play.gallery import SHOWN
from safegen.play.page import LARGEST_UPLOAD, Play
from safegen.play.server import serve_on

pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
WAIT = 120_000
"""Milliseconds for the browser, on a busy machine."""
LOADED = """async () => {
  const images = [...document.images];
  images.forEach((each) => (each.loading = "eager"));
  await Promise.all(images.map((each) => each.decode()));
  return images.length;
}"""
"""Counts the pictures once all are there; one that cannot be decoded is an error."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The installed chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"],
            timeout=WAIT,
        )  # fmt: skip
        yield opened
        opened.close()


@contextmanager
def served(application: Any) -> Iterator[str]:
    server = serve_on(application, 0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{server.host}:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def page(browser: Any, make_easel: Callable[..., Easel], run_folder: Path) -> Iterator[Any]:
    """The page of a detector that flags all; a request to another host fails the test."""
    columns = {"original": "none", "hardened": "random-weights"}
    with served(Play("tiny", make_easel(0.0), columns, {"steps": 2}, run_folder)) as address:
        tab = browser.new_page()
        tab.set_default_timeout(WAIT)
        asked: list[str] = []
        said: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(address)
        yield tab
        tab.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert [text for text in said if "Failed to load" not in text] == []


def draw(page: Any, **fields: str) -> None:
    for name, text in {"prompt": "a cat", "seed": "3", **fields}.items():
        page.fill(f"[name={name}]", text)
    page.click("form button")
    page.wait_for_selector("form button:enabled")


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_pictures_appear_and_the_blur_holds_until_asked(
    page: Any, make_easel: Callable[..., Easel]
) -> None:
    draw(page, baseline="negative-prompt")
    titles = page.locator("figcaption b").all_inner_texts()
    assert titles == ["original", "hardened", "negative-prompt"]
    verdicts = page.locator(".verdict").all_inner_texts()
    assert verdicts == ["flagged"] * 3
    first = page.locator("figure").first
    sharp = first.locator(".ask").get_attribute("data-sharp")
    assert first.locator("img").get_attribute("src").startswith("data:image/png;base64,")
    first.locator(".ask").click()
    assert first.locator("img").get_attribute("src") == sharp
    drawn = pixels(page.request.get(page.url.rstrip("/") + sharp).body())
    assert np.array_equal(drawn, make_easel().draw("none", Wish("a cat", 3, 2)).image)
    assert page.locator(".ask").count() == 2
    assert page.evaluate(LOADED) == 3


def test_an_error_is_a_sentence_on_the_page(page: Any) -> None:
    draw(page, baseline="sld-maxx")
    assert re.search("unknown name 'sld-maxx' among defenses", page.locator("#said").inner_text())
    assert page.locator(".verdict").all_inner_texts()[-1] == "not drawn"
    assert page.locator("figure img").count() == 2
    draw(page, baseline="")
    assert page.locator("#said").inner_text() == ""


def test_a_picture_beyond_the_limit_is_not_sent(page: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(bytes(LARGEST_UPLOAD + 1))
    page.set_input_files("[name=picture]", file)
    draw(page)
    assert page.locator("#said").inner_text().startswith("the picture is too large")


def test_the_gallery_is_browsed(page: Any) -> None:
    page.click("nav a")
    page.select_option("[name=prompt_set]", "knives")
    page.click("form button")
    page.wait_for_url("**prompt_set=knives**")
    assert page.evaluate(LOADED) == SHOWN
    page.select_option("[name=verdict]", "flagged")
    page.click("form button")
    figures = page.locator("figure")
    assert figures.count() == 5
    assert "hostile" not in page.title()
    figures.first.locator(".ask").click()
    assert "?sharp" in figures.first.locator("img").get_attribute("src")
    assert "?sharp" not in figures.nth(1).locator("img").get_attribute("src")
