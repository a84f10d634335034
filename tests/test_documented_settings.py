"""docs/settings.md is what the settings declare; ``python tests/test_documented_settings.py``
writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from itertools import groupby
from pathlib import Path

from safegen.attacks import ATTACKS
from safegen.defenses.erasing import ERASERS
from safegen.editing.settings import EditSettings
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.lab.build.network_settings import NetworkSettings
from safegen.models.options import LoadOptions
from safegen.release.policy import Policy
from safegen.settings import Option, Settings, options, own_options

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"
COMMANDS: dict[str, type[Settings]] = {
    "edit": EditSettings,
    "evaluate": EvaluationSettings,
    "attack, beside those of evaluate": AttackSettings,
    "lab build": NetworkSettings,
}
HEAD = "| option | default | values | meaning |\n|---|---|---|---|"
INTRODUCTION = """# Settings

Every setting is said once, as a field of a settings class; the options of the command line, the
settings files and these tables are made from it. `--settings FILE.yaml` reads values of any option
of its command by name. The command line takes precedence over the file, and the file over the
profile of the model and the defaults below.

```yaml
# safegen edit MODEL --triplets triplets.safetensors --settings mine.yaml --steps 800
out: mine.safetensors
steps: 500
redirect_mixture: {random: 0.2, adversarial: 0.8}
interpolation_range: [0.2, 1.6]
```

`safegen edit --dry-run` prints all settings of an edit in this form. In Python, `EditSettings.of`
takes the same names: `EditSettings.of(steps=500, overshoot=0.3)`.
"""
OWN = """
## Attacks and erasers

They follow the name in its spec, as in `--attack p4d:k,iterations=500` or `--method esd-x,seed=1`;
several values of one setting are joined by `+`. What a colon gives needs no name. The defaults are
the papers' or their released codes'; the profile of a model may have others."""


def document() -> str:
    """The whole document."""
    tables = (line for title, kind in COMMANDS.items() for line in _tables(title, options(kind)))
    loading = _tables("Loading, in every command that takes a model", options(LoadOptions))
    policy = _tables("Keys of a policy, for release", options(Policy), "name")
    return INTRODUCTION + "\n".join([*tables, *policy, *loading, OWN, *_components()]) + "\n"


def _components() -> Iterator[str]:
    kinds = {name: getattr(ATTACKS.get(name), "settings", None) for name in ATTACKS.built_in()}
    kinds |= {name: ERASERS.get(name) for name in ERASERS.names()}
    for name, settings in kinds.items():
        if settings is None:
            continue
        yield f"\n### `{name}`\n\n{HEAD}"
        yield from (_row(option, option.field) for option in own_options(settings))


def _tables(title: str, every: list[Option], spelled: str = "flag") -> Iterator[str]:
    yield f"\n## {title[0].upper()}{title[1:]}"
    shown = [option for option in every if title.startswith("Loading") or option.panel != "Loading"]
    panels = list(dict.fromkeys(option.panel for option in shown))
    ordered = sorted(shown, key=lambda option: panels.index(option.panel))
    for panel, members in groupby(ordered, lambda option: option.panel):
        yield f"\n### {panel or 'General'}\n\n{HEAD}"
        yield from (_row(option, getattr(option, spelled)) for option in members)


def _row(option: Option, name: str) -> str:
    given = option.default not in (MISSING, None, (), "")
    default = f"`{option.written(option.default)}`" if given else ""
    return f"| `{name}` | {default} | {option.allowed} | {option.help} |"


def test_the_document_is_what_the_settings_declare() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
