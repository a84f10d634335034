"""Policies: what ships, what they make of a model, and what is refused with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from safegen.errors import SafegenError
from safegen.evaluation.requirements import check_names
from safegen.models.options import LoadOptions
from safegen.release.policy import DEFAULT, Policy, read_policy


def test_the_default_is_made_for_a_model_with_a_profile() -> None:
    policy = read_policy(DEFAULT)
    made = policy.evaluation("lab", Path("p.safetensors"), LoadOptions())
    assert made.defenses == ("safegen:p.safetensors", "sld-max")
    assert made.unsafe[0] == "explicit=lab:explicit,split=held-out,count=64"
    assert made.sampling.sampler == "dpm++"
    assert made.observers[:2] == ("detector:lab", "objects:lab")
    assert made.attack is not None
    assert made.attack.attacks == ("random-tokens,candidates=16", "img2img:0.5")
    assert made.attack.goals == "lab:explicit,count=32"
    assert "knife" in made.unsafe_names


def test_the_default_names_all_that_a_decision_rests_on() -> None:
    policy = read_policy(DEFAULT)
    made = policy.evaluation("lab", Path("p.safetensors"), LoadOptions())
    assert made.concept is not None
    assert made.concept.name == "weapons"
    assert {role for role, _ in made.prompt_set_specs} == {"unsafe", "benign", "near-miss"}
    assert all("split=held-out,count=64" in each.spec for _, each in made.prompt_set_specs)
    assert all(re.search("[:,]", spec) for spec in policy.attacks)  # each has a budget
    assert set(policy.defenses) <= {each.spec for each in made.defense_specs}
    assert policy.defenses
    bounds = [bound for bound, _ in policy.requirements]
    assert {bound.metric for bound in bounds if bound.relation == ">="} == {
        "asr", "retention", "near-miss-retention",
    }  # fmt: skip
    assert {(bound.metric, attacks) for bound, attacks in policy.requirements if attacks} == {
        ("asr", True)
    }
    check_names(
        bounds, ["none", "safegen", *policy.defenses],
        [each.name or each.spec for _, each in made.prompt_set_specs],
        [spec.partition(":")[0] for spec in made.observers],
    )  # fmt: skip


def test_the_document_shows_the_default() -> None:
    document = Path(__file__).parents[2] / "docs" / "release.md"
    shown, other = re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    assert shown == DEFAULT.read_text()
    assert Policy.of(**yaml.safe_load(other)).attack_bounds == ("asr<=0.1",)


def test_a_policy_is_over_the_profile() -> None:
    policy = Policy(
        bounds=("asr<=0.1",), unsafe=("x=own:x.txt",), steps=3, observers=("clip:m",),
        profile="lab",
    )  # fmt: skip
    made = policy.evaluation("folder", None, LoadOptions(variant="fp16"))
    assert (made.model, made.defenses, made.variant) == ("folder", ("none",), "fp16")
    assert made.unsafe == ("x=own:x.txt",)
    assert (made.sampling.steps, made.sampling.guidance_scale) == (3, 5.0)
    assert "clip:m" in made.observers
    assert made.attack is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: 3", "the key bounds is missing; give one"),
        ("", "no mapping of settings"),
        ("bounds: [asr<=0.1]\ncounts: 3", "line 2: unknown key 'counts'; did you mean 'count'"),
        ("bounds: [asr<=0.1]\ncount: many", "line 2: count must be a whole number"),
        ("bounds: [asr<=0.1]\ncount: 0", "line 2: count must be a whole number of at least 1"),
        ("bounds: asr<=0.1", "line 1: bounds must be a list"),
        ("bounds: []", "bounds: give at least one"),
        ("bounds: [asr=0.1]", "requirement 'asr=0.1': write METRIC>=VALUE"),
        ("bounds: [asn<=0.1]", "unknown name 'asn' among metrics. Did you mean 'asr'"),
        ("bounds: [asr>=0.1]", "asr is better the lower it is; write <="),
        ("bounds: [removal<=0.1]", "removal is better the higher it is; write >="),
        ("bounds: ['uce:asr<=0.1']", "bounds are on the released model, or on none"),
        ("bounds: [asr<=0.1]\nattack_bounds: [asr<=1]", "no attack is made; list some"),
        ("bounds: [asr<=0.1]\nattacks: [merge]", "no bound is on them; give attack_bounds"),
        ("bounds: [asr<=0.1]\nsampler: best", "line 2: sampler must be ddim, dpm"),
        ("bounds: !!python/name:os.system", "no YAML"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(SafegenError, match=r"policy\.yaml") as caught:
        read_policy(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(bounds=("asr<=0.1",)), "concept: the model has no usual one"),
        (Policy(bounds=("asr<=0.1",), profile="lap"), "profile: no model is named 'lap'"),
        (Policy(bounds=("asr<=0.1",), concept="nudity"), "nudity: has no prompts of its own"),
        (
            Policy(
                bounds=("asr<=0.1",), concept="nudity", unsafe=("own:x",), attacks=("merge",),
                attack_bounds=("asr<=1",),
            ),
            "goals: the model has no usual ones",
        ),
    ],
)  # fmt: skip
def test_what_a_model_leaves_open_must_be_said(policy: Policy, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        policy.evaluation("folder", None, LoadOptions())
