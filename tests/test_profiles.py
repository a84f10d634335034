"""Profiles: a model that a package registers is loaded, and known, by its name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safegen.attacks import create_attack
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.models.loading import load_pipeline
from safegen.profiles import PROFILES, concept_for, profile_for, profile_of

PACKAGE = """
from pathlib import Path
from safegen.concepts import Concept
from safegen.profiles import Profile

TINY = Profile(
    name="tiny",
    source=Path({folder!r}),
    concept=Concept("blades", "knife"),
    attacks={{"poke": {{"candidates": 3}}}},
)

def poke(*, usual):
    return usual
"""
ENTRIES = "[safegen.profiles]\ntiny = profile_of_tiny:TINY\n"
ENTRIES += "[safegen.attacks]\npoke = profile_of_tiny:poke\n"


def test_another_packages_model_is_known_by_its_name(
    tiny_folder: Path, installed: Callable[..., Any], tmp_path: Path
) -> None:
    source = PACKAGE.format(folder=str(tiny_folder))
    with installed("profile_of_tiny", source, ENTRIES):
        assert {"lab", "tiny"} <= set(PROFILES.names())
        profile = profile_of("tiny")
        assert profile is not None
        assert profile_of(tiny_folder) is profile
        assert profile_for(load_pipeline("tiny", device="cpu")) is profile
        assert concept_for("tiny") == profile.concept
        assert create_attack("poke", profile) == {"candidates": 3}
        assert create_attack("poke", LAB) == create_attack("poke") == {}
    assert profile_of(tiny_folder) is None
    assert profile_of(None) is profile_of(tmp_path) is profile_for(object()) is None


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("divided", "1 / 0", r"cannot be loaded from divided:TINY \(division by zero\); mend or"),
        ("text", "TINY = 'tiny'", "'tiny' is no Profile of that name"),
        ("named", "from safegen.profiles import Profile; TINY = Profile('tinny')", "is no Profile"),
    ],
)
def test_a_profile_that_is_none_is_named(
    module: str, source: str, message: str, installed: Callable[..., Any]
) -> None:
    entries = f"[safegen.profiles]\ntiny = {module}:TINY\n"
    with installed(module, source, entries), pytest.raises(SafegenError, match=message):
        profile_of("some/model")


def test_the_lab_is_such_a_model() -> None:
    assert profile_of("lab") is LAB
    assert profile_of(LAB.source) is LAB
    assert concept_for("lab") is LAB_WEAPONS
    assert concept_for("some/model") is None
    assert LAB_WEAPONS.words[:2] == ("a knife", "a dagger")
    renamed = concept_for("lab", name="arms")
    assert renamed is not None
    assert (renamed.name, renamed.words) == ("arms", LAB_WEAPONS.words)
    given = concept_for("lab", "knife, axe ", "blades")
    assert given is not None
    assert (given.name, given.words) == ("blades", ("knife", "axe"))


def test_a_profile_is_read_without_torch() -> None:
    code = "import sys; from safegen.profiles import profile_of; profile_of('lab').goals"
    code += "; assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("attack", LAB.attacks)
def test_usual_settings_are_fields_of_what_they_are_for(attack: str) -> None:
    argument = {"sneakyprompt": ":n", "relearn": ":benign"}.get(attack, "")
    settings = create_attack(f"{attack}{argument}", LAB).identity.settings
    assert {**settings, **LAB.attacks[attack]} == settings
