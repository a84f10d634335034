"""Makes pages of the site from the program, and checks that no page loads from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_command

import safegen
from safegen.cli import app
from safegen.report.entries import entries_of, read_entries
from safegen.report.evaluation import render_report
from safegen.report.evaluation_gallery import Gallery
from safegen.report.leaderboard import render_leaderboard
from safegen.report.tables import read_summary

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured"
"""The lab's runs, a summary each, and figures of others."""
BESIDE = ("LICENSE", "CITATION.cff")
"""Files that the documents link to, beside pages."""
DOCUMENTS = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
}  # fmt: skip
EXTENDED = (
    "registry", "settings", "errors", "concepts", "profiles", "detectors", "observers", "defenses",
    "defenses.erasing", "attacks", "attacks.target", "metrics", "prompts", "results.records",
    "models.families",
)  # fmt: skip
"""Modules that other packages build on."""
FOREIGN = (
    r"<(?:script|img|iframe|source|embed|object)\b[^>]*(?:src|data)=[\"']?(?:https?:)?//[^\"'> ]*",
    r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*href=[\"']?(?:https?:)?//[^\"'> ]*",
    r"@import[^;]*//[^;]*|url\([\"']?(?:https?:)?//[^)]*",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in docs/."""
    for place, content in _pages():
        files.append(File.generated(config, place, content=content))
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def _pages() -> Iterator[tuple[str, str]]:
    for name, place in DOCUMENTS.items():
        yield place, (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    command = get_command(app)
    shown = get_docs_for_click(obj=command, ctx=typer.Context(command), name="safegen")
    # In a sentence of the help, an angle bracket begins no element; in code it stays as it is.
    shown = re.sub(r"`[^`]*`|<", lambda found: found[0] if len(found[0]) > 1 else "&lt;", shown)
    yield "cli.md", shown.replace("# `safegen`", "# Command line", 1)
    homes = sorted(safegen._HOMES.items(), key=lambda item: item[0].lower())
    yield (
        "python.md",
        _reference("Python", "programs may use", [f"{home}.{name}" for name, home in homes]),
    )
    names = [f"safegen.{name}" for name in EXTENDED]
    yield "extending.md", _reference("Python, to extend", "other packages build on", names)
    yield from _measured()


def _measured() -> Iterator[tuple[str, str]]:
    """Write the reports of the lab's runs, and their leaderboard."""
    entries = read_entries(MEASURED / "others.csv")
    for path in sorted(MEASURED.glob("*.json")):
        table = read_summary(path)
        entries += entries_of(table, path.stem)
        yield f"measured/{path.stem}.html", render_report(table, Gallery())
    yield "measured/leaderboard.html", render_leaderboard(entries, {})


def _reference(title: str, what: str, names: list[str]) -> str:
    """Write a page of docstrings, of what ``what`` says."""
    blocks = "\n".join(f"::: {name}\n" for name in names)
    return f"# {title}\n\nWhat {what}.\n\n{blocks}"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links between the documents to their pages."""
    for name, place in DOCUMENTS.items():
        markdown = re.sub(rf"\]\((\.\./)?{name}", f"]({place}", markdown)
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site whose pages or styles load anything from another host."""
    for file in sorted(Path(config.site_dir).rglob("*")):
        if file.suffix in (".html", ".css"):
            text = file.read_text(encoding="utf-8")
            if found := [hit for each in FOREIGN for hit in re.findall(each, text)]:
                raise PluginError(f"{file.name} loads from another host: {found[0]}")
