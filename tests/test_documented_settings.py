"""docs/settings.md is what the settings declare; ``python tests/test_documented_settings.py``
writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from itertools import groupby
from pathlib import Path

from safegen.editing.settings import EditSettings
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.lab.build.joint_settings import JointSettings
from safegen.models.options import LoadOptions
from safegen.release.policy import Policy
from safegen.settings import Option, Settings, options

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"
COMMANDS: dict[str, type[Settings]] = {
    "edit": EditSettings,
    "evaluate": EvaluationSettings,
    "attack, beside those of evaluate": AttackSettings,
    "lab build": JointSettings,
}
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


def document() -> str:
    """The whole document."""
    tables = (line for title, kind in COMMANDS.items() for line in _tables(title, options(kind)))
    loading = _tables("Loading, in every command that takes a model", options(LoadOptions))
    policy = _tables("Keys of a policy, for release", options(Policy), "name")
    return INTRODUCTION + "\n".join([*tables, *policy, *loading]) + "\n"


def _tables(title: str, every: list[Option], spelled: str = "flag") -> Iterator[str]:
    yield f"\n## {title[0].upper()}{title[1:]}"
    shown = [option for option in every if title.startswith("Loading") or option.panel != "Loading"]
    panels = list(dict.fromkeys(option.panel for option in shown))
    ordered = sorted(shown, key=lambda option: panels.index(option.panel))
    for panel, members in groupby(ordered, lambda option: option.panel):
        yield f"\n### {panel or 'General'}\n"
        yield "| option | default | values | meaning |\n|---|---|---|---|"
        for option in members:
            given = option.default not in (MISSING, None, (), "")
            default = f"`{option.written(option.default)}`" if given else ""
            yield f"| `{getattr(option, spelled)}` | {default} | {option.allowed} | {option.help} |"


def test_the_document_is_what_the_settings_declare() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
