"""What every command does with an error, an interrupt and a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from safegen import cli
from safegen.cli._console import Console

Safegen = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "next_time"),
    [
        (["edit"], "goes on where it was"), (["lab", "build"], "goes on where it was"),
        (["generate"], "begins anew"), (["triplets"], "begins anew"), (["lab", "check"], "begins"),
    ],
)  # fmt: skip
def test_an_interrupt_is_130_and_says_what_the_same_command_does(
    safegen: Safegen, monkeypatch: pytest.MonkeyPatch, arguments: list[str], next_time: str
) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    code, _, said = safegen(*arguments)
    assert code == 130
    assert said.startswith(f"safegen: interrupted; the same command {next_time}")


def test_an_interrupt_within_a_command_is_told_too(
    safegen: Safegen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safegen.models.loading.load_pipeline", interrupted)
    said = safegen("generate", "./none", "--prompt", "a", "--out", tmp_path)
    assert said == (130, "", "safegen: interrupted; the same command begins anew\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "lab", "--stpes", "3"], "safegen generate: No such option: --stpes"),
        (["lab", "check", "--count", "few"], "'--count'"),
        (["lab", "chek"], "safegen lab: No such command 'chek'"),
        (["generate"], "safegen generate: Missing argument"),
    ],
)
def test_wrong_arguments_are_one_line(safegen: Safegen, arguments: list[str], message: str) -> None:
    code, _, said = safegen(*arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert "--help)" in said


def test_nothing_given_is_the_help(safegen: Safegen) -> None:
    assert "evaluate" in "".join(safegen()[1:])
    assert safegen("lab", "check", "--help")[0] == 0


@pytest.mark.parametrize("message", ["[enforce] DefaultCPUAllocator: can't allocate memory", None])
def test_memory_that_is_not_there_is_one_line(
    safegen: Safegen, monkeypatch: pytest.MonkeyPatch, message: str | None
) -> None:
    def greedy(**_: Any) -> None:
        raise MemoryError if message is None else RuntimeError(message)

    monkeypatch.setattr(cli, "app", greedy)
    assert safegen() == (
        2, "", "safegen: out of memory; give a smaller --batch or free some memory\n",
    )  # fmt: skip


def test_the_console_prints_names_literally_and_folds_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = f"{tmp_path}/[red]:smile:/{40 * 'long '}.html"
    console = Console()
    console.print(f"report: {name}")
    table: Any = Table("[b]", title="[i]")
    table.add_row("[/]")
    console.print(table)
    said = capsys.readouterr().out
    assert said.startswith(f"report: {name}\n")
    assert all(text in said for text in ("[b]", "[i]", "[/]"))
