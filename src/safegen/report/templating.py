"""Jinja2 over the package's own templates; nothing is loaded from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

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


def render_page(template: str, styles: Sequence[str], script: str, **values: Any) -> str:
    """An HTML page that extends ``page.html.j2``: it holds all that it needs, and its policy lets
    only its own script run.

    Args:
        template: its file.
        styles: files of its style sheets, in order.
        script: file of its script.
        values: what the template asks for.
    """
    code = template_text(script).strip()
    page = environment().get_template(template)
    return page.render(
        style=Markup("".join(map(template_text, styles))),
        script=Markup(code),
        script_hash=base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
        **values,
    )


def template_text(name: str) -> str:
    """A file of the package's templates folder."""
    return (files("safegen.report") / "templates" / name).read_text(encoding="utf-8")
