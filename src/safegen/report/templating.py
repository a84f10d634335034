"""Jinja2 over the package's own templates; nothing is loaded from anywhere else."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from safegen.report.figures import duration


def environment(autoescape: bool = True) -> Environment:
    """An environment in which an unknown name is an error.

    Args:
        autoescape: True for HTML; False for Markdown.
    """
    made = Environment(
        loader=FunctionLoader(template_text),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["duration"] = duration
    return made


def template_text(name: str) -> str:
    """A file of the package's templates folder."""
    return (files("safegen.report") / "templates" / name).read_text(encoding="utf-8")
