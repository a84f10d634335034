"""Jinja2 over the package's own templates alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from safegen.report.wording import code, duration, literal

HOME = "safegen.report"


def environment(autoescape: bool = True, home: str = HOME) -> Environment:
    """Make an environment in which an unknown name is an error.

    Args:
        autoescape: True for HTML; False for Markdown.
        home: package whose folder ``templates`` holds the templates.
    """
    made = Environment(
        loader=FunctionLoader(partial(template_text, home=home)),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"duration": duration, "literal": literal, "code": code}
    return made


def render_page(name: str, parts: Sequence[str] = (), **values: Any) -> str:
    """Render an HTML page without external references; its policy lets only its own script run.

    Args:
        name: name of its template, without suffix.
        parts: names of its style sheets and scripts, in order (default: its own).
        values: values of the template's variables.
    """
    used = parts or (name,)
    program = "".join(template_text(f"{part}.js") for part in used).strip()
    return (
        environment()
        .get_template(f"{name}.html.j2")
        .render(
            style=Markup("".join(template_text(f"{part}.css") for part in used)),
            script=Markup(program),
            script_hash=base64.b64encode(hashlib.sha256(program.encode()).digest()).decode(),
            **values,
        )
    )


def template_text(name: str, home: str = HOME) -> str:
    """Read a file of a package's templates folder."""
    return (files(home) / "templates" / name).read_text(encoding="utf-8")
