"""Settings of the built-in attacks, as specs give them."""

from __future__ import annotations

import pytest

from safegen.attacks import ATTACKS, create_attack
from safegen.attacks.p4d import P4DSettings
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from safegen.settings import own_options


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("p4d:other", "p4d: form must be n or k, not 'other'"),
        ("p4d:k,iterations=-1", "p4d: iterations must be a whole number of at least 0, not -1"),
        ("p4d:k,iterations=few", "iterations must be a whole number, not 'few'"),
        ("p4d:k,iterashions=5", "unknown option 'iterashions'; did you mean 'iterations'"),
        ("p4d:k,form=n", "unknown option 'form'"),
        ("unlearndiffatk:other", "goal must be named or unnamed"),
        ("sneakyprompt:x", "form must be n or p"),
        ("tina,energy=-1", "energy must be a finite number of at least 0, not -1"),
        ("mma,rounds=0", "mma: rounds must be a whole number of at least 1, not 0"),
        ("repeated:2:p4d:k,iterations=few", "iterations must be a whole number, not 'few'"),
        ("recall,momentum=1", "momentum must be a finite number of at least 0 and below 1, not 1"),
        ("recall,goal=text", "goal must be prediction or picture"),
        ("ring-a-bell,population=3", "population must be a whole number of at least 4"),
        ("relearn:other", "data must be benign or unsafe"),
        ("relearn,steps=10", "checks lie between 0 and the 10 steps"),
        ("relearn,checks=0+half", "checks must be a whole number, not 'half'"),
        ("relearn,lost=0", "lost must be a finite number above 0 and at most 1"),
        ("img2img:much", "strength must be a finite number, not 'much'"),
        ("img2img:0", "strength must be a finite number above 0 and at most 1, not 0"),
        ("img2img:nan", "strength must be a finite number, not 'nan'"),
        ("img2img:0.5,strength=1", "unknown option 'strength'"),
        ("merge:1", "share must be a finite number above 0 and below 1, not 1"),
        ("quantise:9", "bits must be a whole number of at least 2 and at most 8, not 9"),
        ("quantise:few", "bits must be a whole number, not 'few'"),
    ],
)
def test_what_does_not_fit_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SafegenError) as refused:
        create_attack(spec)
    assert message in str(refused.value)


def test_options_take_precedence_over_the_profile_and_it_over_the_papers() -> None:
    settings = create_attack("p4d:n,iterations=5", LAB).identity.settings
    assert (settings["form"], settings["iterations"]) == ("n", 5)
    assert settings["latents"] == LAB.attacks["p4d"]["latents"] != 100
    assert create_attack("p4d:n").identity.settings["latents"] == 100
    checks = create_attack("relearn,checks=0+5").identity.settings["checks"]
    assert checks == (0, 5)


def test_all_settings_are_options_with_help_and_bounds() -> None:
    declared = {name: getattr(ATTACKS.get(name), "settings", None) for name in ATTACKS.built_in()}
    assert declared["p4d"] is P4DSettings
    for name, settings in declared.items():
        for option in own_options(settings) if settings else ():
            assert option.help, (name, option.name)
            if option.kind in (int, float):
                with pytest.raises(SafegenError, match=f"{name}: {option.name} must be"):
                    option.check(float("nan"))
