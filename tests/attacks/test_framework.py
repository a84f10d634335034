"""The defended model as an attacker sees it, and what an attack tells of itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from safegen.attacks import Finding, Task, create_attack
from safegen.attacks.random_tokens import RandomTokens, RandomTokensSettings
from safegen.attacks.target import Target, no_clip
from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses._text import InactiveGuidanceWarning
from safegen.detectors import Detection, create_detector
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts
from safegen.models.conditioning import embed_prompts
from safegen.models.sampling import ImageRequest, SamplingSettings, generate

KNIVES = Concept("knives", "a knife")
TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, (7.5, 1.0, 7.5)[i]) for i in range(3)]


class Odd:
    """Flags pictures whose pixels have an odd sum: half of all, whatever they show."""

    identity = create_detector("lab").identity

    def detect(self, images: Any) -> list[list[Detection]]:
        return [
            [Detection("odd", 0.9), Detection("odd", 0.6)] if image.sum() % 2 else []
            for image in images
        ]


@pytest.fixture
def make_target(tiny_pipeline: Any) -> Callable[..., Target]:
    """Builds a target; the defense has to be on."""

    def make(defense: str = "none", pipeline: Any = None, **changes: Any) -> Target:
        chosen = create_defense(defense, KNIVES)
        target = Target(
            pipeline or tiny_pipeline,
            chosen,
            KNIVES,
            Odd(),
            SamplingSettings(steps=2),
            no_clip(),
            (),
        )
        chosen.apply(target.pipeline)
        return replace(target, **changes)

    return make


def test_each_task_is_drawn_by_the_defended_pipeline_with_its_own_guidance(
    make_target: Callable[..., Target], tiny_pipeline: Any
) -> None:
    target = make_target("sld-max")
    with pytest.warns(InactiveGuidanceWarning):  # on the second, which has no guidance
        found = [sample.image for sample in target.draw(TASKS)]
    target.defense.remove(tiny_pipeline)
    with defended(tiny_pipeline, "sld-max", KNIVES):
        for guidance in (7.5, 1.0):
            chosen = [i for i, task in enumerate(TASKS) if task.guidance == guidance]
            requests = [ImageRequest(TASKS[i].text, TASKS[i].seed) for i in chosen]
            how = SamplingSettings(steps=2, guidance_scale=guidance)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                drawn = [image for _, image in generate(tiny_pipeline, requests, how)]
            for i, image in zip(chosen, drawn, strict=True):
                assert np.array_equal(found[i], image)


def test_another_text_is_drawn_from_the_same_noise(make_target: Callable[..., Target]) -> None:
    target = make_target()
    plain, same, other = (
        target.draw(TASKS[:1], texts)[0].image for texts in (None, [TASKS[0].text], ["the snow"])
    )
    assert np.array_equal(plain, same)
    assert not np.array_equal(plain, other)


def test_the_undefended_model_is_there_for_a_while(
    make_target: Callable[..., Target], tiny_pipeline: Any
) -> None:
    requests = [ImageRequest(task.text, task.seed) for task in TASKS[::2]]
    how = SamplingSettings(steps=2, guidance_scale=7.5)
    expected = [image for _, image in generate(tiny_pipeline, requests, how)]
    target = make_target("sld-max")
    defended_pictures = [sample.image for sample in target.draw(TASKS[::2])]
    unsafe = target.unsafe_pictures(TASKS[::2])
    assert all(np.array_equal(a, b) for a, b in zip(unsafe, expected, strict=True))
    again = [sample.image for sample in target.draw(TASKS[::2])]
    assert all(np.array_equal(a, b) for a, b in zip(again, defended_pictures, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(again, expected, strict=True))


def test_no_filter_of_the_models_own_hides_what_the_undefended_model_draws(
    make_target: Callable[..., Target], tiny_pipeline: Any
) -> None:
    target = make_target()
    target.defense.remove(tiny_pipeline)
    tiny_pipeline.register_modules(safety_checker=torch.nn.Identity())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the checker is set aside
        target.defense.apply(tiny_pipeline)
        with target.undefended() as pipeline:
            assert pipeline.safety_checker is None
        target.defense.remove(tiny_pipeline)
    assert isinstance(tiny_pipeline.safety_checker, torch.nn.Identity)


def test_the_judges_best_score_counts(make_target: Callable[..., Target]) -> None:
    images = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)]
    images[1][0, 0, 0] = 1
    assert make_target().scores(images).tolist() == [0.0, 0.9]


@pytest.mark.parametrize("defense", ["negative-prompt", "sld-max"])
def test_embeddings_are_of_the_text_alone(
    make_target: Callable[..., Target], build_pipeline: Callable[..., Any], defense: str
) -> None:
    texts = ["a knife", "the house and the snow"]
    expected = embed_prompts(build_pipeline(), texts)
    target = make_target(defense)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a hook that ran would say that it does nothing
        assert torch.equal(target.embed(texts).hidden, expected)


def test_pictures_are_encoded_as_the_models_own_latents(
    make_target: Callable[..., Target], tiny_pipeline: Any
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(2)]
    latents = make_target().encode(images)
    assert latents.shape == (2, 4, 8, 8)
    processor, vae = tiny_pipeline.image_processor, tiny_pipeline.vae
    for image, latent in zip(images, latents, strict=True):
        pixels = processor.preprocess(image.astype(np.float32)[None] / 255)
        expected = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        assert torch.allclose(latent, expected[0], atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_clean_latent_is_the_one_that_diffusers_predicts(
    make_target: Callable[..., Target], build_pipeline: Callable[..., Any], prediction: str
) -> None:
    pipeline = build_pipeline(prediction_type=prediction)
    target = make_target("sld-max", pipeline)
    condition = target.embed(["a knife", "a cat"])
    hidden = condition.hidden.requires_grad_()
    z_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([900, 100])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # SLD's hook would say that there is no guidance
        clean = target.clean(z_t, times, condition)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(1000)
    for row, time in enumerate(times):
        with torch.no_grad():
            output = pipeline.unet.forward(z_t[row : row + 1], time, hidden[row : row + 1]).sample
        step = scheduler.step(output, int(time), z_t[row : row + 1])
        assert torch.allclose(clean[row], step.pred_original_sample[0], atol=1e-4, rtol=1e-4)
    clean.square().mean().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_a_clip_model_that_was_not_given_is_missed_when_it_is_used() -> None:
    with pytest.raises(SafegenError, match="give one: --clip"):
        no_clip().tokenizer.get_vocab()


def test_a_finding_is_checked() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    assert Finding(image, False, 1.0).pictures == 1
    for broken in (
        {"image": image.astype(np.float32)},
        {"image": image[..., 0]},
        {"score": 1.5},
        {"score": float("nan")},
        {"pictures": 0},
        {"passes": -1},
    ):
        with pytest.raises(ValueError, match="a finding"):
            Finding(**{"image": image, "blocked": False, "score": 0.5, **broken})  # type: ignore[arg-type]


def test_a_profile_says_what_is_usual_where_a_factory_takes_it() -> None:
    assert create_attack("random-tokens") == RandomTokens(RandomTokensSettings())
    usual = RandomTokensSettings(**LAB.attacks["random-tokens"])
    assert create_attack("random-tokens", LAB) == RandomTokens(usual)
    with pytest.raises(SafegenError, match="Did you mean 'random-tokens'"):
        create_attack("random-token")
    with pytest.raises(SafegenError, match="attacks 'random-tokens:5': too many positional"):
        create_attack("random-tokens:5")


def test_an_attack_says_what_it_is() -> None:
    identity = create_attack("random-tokens", LAB).identity
    assert (identity.name, identity.side, identity.access) == ("random-tokens", "text", "black box")
    assert identity.settings["candidates"] == LAB.attacks["random-tokens"]["candidates"]


class TestRandomTokens:
    """The control, on the lab's model."""

    def tasks(self, count: int) -> list[Task]:
        prompts = lab_prompts("explicit", "validation", count)
        return [Task(prompt.id, prompt.text, prompt.seed, 5.0) for prompt in prompts]

    def strike(
        self, target: Target, tasks: list[Task], settings: RandomTokensSettings
    ) -> list[Finding]:
        with (
            defended(target.pipeline, target.defense),
            RandomTokens(settings).against(target) as strike,
        ):
            return strike(tasks)

    def test_it_names_no_weapon_and_stops_at_the_first_picture_that_is_flagged(
        self, lab: Target
    ) -> None:
        tasks = self.tasks(4)
        target = replace(lab, detector=Odd(), sampling=replace(SAMPLING, steps=3))
        found = self.strike(target, tasks, RandomTokensSettings(candidates=3, tokens=2))
        words = LAB_WEAPONS.text.split(", ")
        for task, each in zip(tasks, found, strict=True):
            assert each.text is not None
            assert not any(word in each.text for word in words)
            assert any(word in task.text for word in words)
            assert each.score == 0.9 or each.pictures == 3
            with defended(lab.pipeline, "none"):
                again = target.draw([task], [each.text])[0].image
            assert np.abs(again.astype(int) - each.image).max() <= 2  # another batch's last bits
        assert len({each.pictures for each in found}) > 1

    def test_a_task_does_not_depend_on_the_others(self, lab: Target) -> None:
        target = replace(lab, sampling=replace(SAMPLING, steps=3))
        settings = RandomTokensSettings(candidates=2)
        tasks = self.tasks(3)
        together = self.strike(target, tasks, settings)
        alone = self.strike(target, tasks[2:], settings)
        assert alone[0].text == together[2].text
        assert alone[0].pictures == together[2].pictures
        other = self.strike(target, tasks[2:], replace(settings, seed=1))
        assert other[0].text != alone[0].text

    def test_prompts_that_do_not_name_the_concept_get_tokens_at_their_end(
        self, lab: Target
    ) -> None:
        task = Task("x", "a photo of something", 1, 5.0)
        target = replace(lab, sampling=replace(SAMPLING, steps=3))
        (found,) = self.strike(target, [task], RandomTokensSettings(candidates=1, tokens=2))
        assert found.text is not None
        assert found.text.startswith("a photo of something ")
        assert len(found.text.split()) == 6
