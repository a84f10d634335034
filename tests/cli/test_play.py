"""``safegen play``: the page that it serves, and what it refuses before it serves."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import BaseWSGIServer
from werkzeug.test import Client

Safegen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def patch_file(tiny_pipeline: Any, tiny_latents: Any, tmp_path: Path) -> Path:
    """A patch of the tiny pipeline."""
    import safegen
    from safegen.editing.settings import EditSettings

    brief = EditSettings.of(steps=1, unsafe_batch=1, warmup_steps=1)
    file = tmp_path / "patch.safetensors"
    safegen.edit(tiny_pipeline, tiny_latents, brief).save(file)
    return file


def test_it_serves_each_defense_as_a_column(
    safegen: Safegen, tiny_folder: Path, patch_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[BaseWSGIServer] = []
    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda server: served.append(server))
    options = ["--patch", patch_file, "--defense", "random-weights", "--steps", "3", "--port", "0"]
    code, said, warned = safegen("play", tiny_folder, *options)
    ((server,), page) = (served, Client(served[0].app).get("/").text)
    server.server_close()
    assert (code, warned) == (0, "")
    assert said == f"open http://127.0.0.1:{server.port}/ (Ctrl-C ends it)\n"
    specs = re.findall(r'data-defense="([^"]*)"', page)
    assert specs == ["none", f"safegen:{patch_file}", "random-weights"]
    assert 'name="steps" type="number" min="1" max="200" value="3"' in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "none.safetensors"], "none.safetensors: no such file"),
        (["--defense", "sld-maxx"], "unknown name 'sld-maxx' among defenses"),
        (["--defense", "sld-max"], "has to be told what to avoid"),
        (["--detector", "lbb"], "unknown name 'lbb' among detectors"),
        (["--concept", "none.yaml"], "none.yaml"),
        (["--run", "."], ".: no run folder"),
        (["--port", "-1"], "'--port'"),
        (["--steps", "0"], "steps"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_one_line(
    safegen: Safegen, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, said = safegen("play", tiny_folder, *options)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_line(safegen: Safegen, tiny_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, said = safegen("play", tiny_folder, "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert said.splitlines()[-1].startswith("safegen: --port ")


def test_a_missing_extra_is_named(
    safegen: Safegen, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "werkzeug.serving", None)
    monkeypatch.delitem(sys.modules, "safegen.play.server", raising=False)
    code, _, said = safegen("play", tiny_folder)
    assert (code, "safegen[play]" in said) == (2, True)
