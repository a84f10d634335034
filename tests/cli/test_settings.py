"""Options and settings files that are made from what settings declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from safegen.cli import app
from safegen.cli._settings import takes_settings
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.models.options import LoadOptions
from safegen.settings import options

GIVEN: list[Any] = []


@takes_settings(given=EditSettings)
def command(
    model: str,
    out: Path = Path("out"),
    tag: list[str] | None = None,
    *,
    given: dict[str, Any],
    loading: LoadOptions,
) -> None:
    GIVEN[:] = [model, out, tag, given, loading]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs the command with a settings file of a text; returns what it was told."""
    alone = typer.Typer()
    alone.command()(command)

    def run_with(text: str, *arguments: str) -> list[Any]:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        result = CliRunner().invoke(alone, ["lab", "--settings", str(file), *arguments])
        if isinstance(result.exception, SafegenError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return list(GIVEN)

    return run_with


def test_the_command_line_is_over_the_file_and_the_file_over_the_defaults(run: Any) -> None:
    text = """
        steps: 7             # an edit's
        learning-rate: 1e-3
        interpolation_range: [0.5, 1.5]
        redirect_mixture: {empty: 0.25, adversarial: 0.75}
        seed: null
        out: elsewhere
        tag: [a, b]
        allow_pickle: true
    """
    model, out, tag, given, loading = run(text, "--steps", "9", "--out", "here")
    assert (model, out, tag) == ("lab", Path("here"), ["a", "b"])
    assert loading == LoadOptions(allow_pickle=True)
    settings = EditSettings.of(**given)
    assert settings == EditSettings.of(
        steps=9,
        learning_rate=1e-3,
        interpolation_range=(0.5, 1.5),
        redirect_mixture="empty=0.25,adversarial=0.75",
    )


def test_settings_are_read_back_as_they_are_written(run: Any) -> None:
    paper = EditSettings.paper()
    lines = []
    for option in options(EditSettings):
        group = getattr(paper, option.group) if option.group else paper
        lines.append(f"{option.name}: {option.written(getattr(group, option.field))}")
    assert EditSettings.of(**run("\n".join(lines))[3]) == paper


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nstep: 7", "mine.yaml, line 2: unknown setting 'step'; did you mean 'steps'?"),
        ("settings: other.yaml", "line 1: unknown setting 'settings'"),
        ("steps: 1\nsteps: 2", "line 2: 'steps' is there twice"),
        ("steps: many", "line 1: steps: 'many': "),
        ("steps: [", "mine.yaml: no YAML"),
        ("- steps", "mine.yaml: no mapping of settings to values"),
        ("", "mine.yaml: no mapping of settings to values"),
    ],
)
def test_what_a_file_has_wrong_is_said_with_its_line(run: Any, text: str, message: str) -> None:
    with pytest.raises(SafegenError) as error:
        run(text)
    assert message in str(error.value)


def test_no_help_is_cut_off_at_80_columns() -> None:
    names = [command.name for command in app.registered_commands]
    for name in names:
        result = CliRunner().invoke(app, [str(name), "--help"], env={"COLUMNS": "80"})
        assert result.exit_code == 0
        assert "…" not in result.output, name
