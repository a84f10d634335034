"""The page's answers: what is hidden stays so, errors are sentences, and other sites get none."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from markupsafe import escape
from PIL import Image
from werkzeug.test import Client, encode_multipart

from safegen.play.drawing import Easel
from safegen.play.page import LARGEST_UPLOAD, REMEMBERED, Play
from safegen.report.pictures import blurred
from safegen.results.records import DefenseRecord, Item, PromptSetRecord
from safegen.results.store import CellKey, ResultsStore

WISH = {"prompt": "a cat", "seed": "3", "steps": "1", "defense": "none"}
HOSTILE = '<script>document.title = "hostile"</script>'
COLUMNS = {"original": "none", "hardened": "random-weights"}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def shown_of(answer: dict[str, Any]) -> np.ndarray:
    return pixels(base64.b64decode(answer["picture"].partition(",")[2]))


@pytest.fixture
def make_client(make_easel: Callable[..., Easel], run_folder: Path) -> Callable[..., Client]:
    """Opens the page, of a detector with this threshold."""

    def make(threshold: float = 0.0) -> Client:
        return Client(Play("<tiny>", make_easel(threshold), COLUMNS, {"steps": 2}, run_folder))

    return make


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    """The page of a detector that flags all."""
    return make_client()


def test_a_flagged_picture_comes_blurred_and_sharp_when_asked(client: Client) -> None:
    answer: Any = client.post("/draw", data=WISH).json
    sharp = pixels(client.get(answer["sharp"]).data)
    assert answer["verdict"] == "flagged"
    assert np.array_equal(shown_of(answer), np.asarray(blurred(Image.fromarray(sharp))))


def test_a_picture_that_is_not_flagged_is_shown(make_client: Callable[..., Client]) -> None:
    answer: Any = make_client(2.0).post("/draw", data=WISH).json
    assert (answer["verdict"], answer["sharp"]) == ("not flagged", None)
    assert shown_of(answer).std() > 0


def test_an_own_picture_is_the_start(client: Client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    file = (io.BytesIO(buffer.getvalue()), "red.png")
    started: Any = client.post("/draw", data={**WISH, "strength": "1", "picture": file}).json
    plain: Any = client.post("/draw", data=WISH).json
    assert started["picture"] != plain["picture"]


def test_an_own_picture_is_never_written_to_disk(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise, buffer = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert buffer.tell() > 1 << 20
    buffer.seek(0)
    values = {**WISH, "strength": "1", "picture": (buffer, "a.png")}
    boundary, body = encode_multipart(values)
    monkeypatch.setattr("tempfile.tempdir", "/none")
    kind = f"multipart/form-data; boundary={boundary}"
    answer = client.post("/draw", data=body, content_type=kind)
    assert answer.status_code == 200


def test_the_oldest_hidden_pictures_are_forgotten(client: Client) -> None:
    application: Any = client.application
    first = application._hidden.keep(b"first")
    assert client.get(f"/drawn/{first}").data == b"first"
    for _ in range(REMEMBERED):
        application._hidden.keep(b"other")
    assert client.get(f"/drawn/{first}").status_code == 404


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "there is no prompt"),
        ({"seed": "many"}, "the seed must be a number"),
        ({"defense": "sld-maxx"}, "sld-max"),
        ({"defense": "safegen:none.safetensors"}, "no such patch file"),
        ({"picture": (io.BytesIO(b"no picture"), "a.png")}, "cannot be read as an image"),
        ({"strength": "2"}, "the strength must be"),
    ],
)
def test_an_error_is_one_sentence(client: Client, changes: dict[str, Any], message: str) -> None:
    answer = client.post("/draw", data={**WISH, **changes})
    assert (answer.status_code, answer.mimetype) == (400, "text/plain")
    assert message in answer.text
    assert "\n" not in answer.text


def test_an_upload_beyond_the_limit_is_refused(client: Client) -> None:
    file = (io.BytesIO(bytes(LARGEST_UPLOAD)), "a.png")
    answer = client.post("/draw", data={**WISH, "picture": file})
    assert (answer.status_code, "at most 16 MiB" in answer.text) == (413, True)


@pytest.mark.parametrize(
    "headers", [{"Host": "example.org"}, {"Origin": "https://example.org"}, {"Origin": "null"}]
)
def test_other_sites_are_refused(client: Client, headers: dict[str, str]) -> None:
    answer = client.post("/draw", data=WISH, headers=headers)
    assert answer.status_code in (400, 403)
    assert client.post("/draw", data=WISH, headers={"Origin": "http://localhost"}).json


def test_no_answer_may_load_from_elsewhere_or_stay(client: Client) -> None:
    for path in ("/", "/play.js", "/gallery?prompt_set=knives", "/none"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"


def test_the_gallery_blurs_and_escapes(client: Client, picture_of: Callable[[int], bytes]) -> None:
    text = client.get("/gallery?defense=none&prompt_set=knives&verdict=flagged").text
    assert "<script>document" not in text
    assert text.count("Show it") == 5
    place = f"/gallery/{hashlib.sha256(picture_of(1)).hexdigest()}"
    sharp = pixels(picture_of(1))
    assert f'src="{place}"' in text
    assert np.array_equal(pixels(client.get(f"{place}?sharp").data), sharp)
    soft = np.asarray(blurred(Image.fromarray(sharp)))
    assert np.array_equal(pixels(client.get(place).data), soft)


def test_names_on_the_page_and_in_the_gallery_are_text(
    make_easel: Callable[..., Easel], picture_of: Callable[[int], bytes], tmp_path: Path
) -> None:
    cell = CellKey(HOSTILE, HOSTILE)
    with ResultsStore(tmp_path) as store:
        record = PromptSetRecord(HOSTILE, "unsafe")
        store.keep_prompt_set(record, [(0, Item(HOSTILE, 0, HOSTILE, 0, 5.0))])
        store.keep_defense(DefenseRecord(HOSTILE))
        store.add_pictures(cell, [0], [(picture_of(0), False)])
    columns = {HOSTILE: HOSTILE}
    page = Client(Play(HOSTILE, make_easel(2.0), columns, {"steps": 2}, tmp_path))
    for path in ("/", "/gallery", f"/gallery?{urlencode({'defense': HOSTILE})}"):
        text = page.get(path).text
        assert escape(HOSTILE) in text
        assert "<script>document" not in text
    refused = page.post("/draw", data={**WISH, "defense": HOSTILE})
    assert (refused.status_code, refused.mimetype) == (400, "text/plain")


def test_a_page_without_a_run_says_how_to_get_one(make_easel: Callable[..., Easel]) -> None:
    answer = Client(Play("tiny", make_easel(), COLUMNS, {"steps": 2})).get("/gallery")
    assert (answer.status_code, "--run" in answer.text) == (404, True)
