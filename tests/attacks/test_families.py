"""Attacks on denoisers that take pooled features too: Stable Diffusion 3 and XL."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import tiny_targets
from safegen.attacks import create_attack
from safegen.attacks._fine_tuning import FolderPictures, Lesson, training_loss
from safegen.attacks._from_pictures import draw_from
from safegen.attacks._gradients import frozen
from safegen.attacks.distil import DistilSettings, Student, path_of
from safegen.attacks.null_text import Inversion, NullTextSettings
from safegen.attacks.tina import TextFreePath, TinaSettings
from safegen.defenses import defended
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import TextCondition, encode_prompts
from safegen.models.merging import merge_zero_tokens
from safegen.models.sampling import sampler_for
from safegen.observers.clip import load_clip
from tiny_families import build
from tiny_parts import t5
from tiny_targets import TASKS, Never, strike

EXAMPLES = [replace(task, id=f"e{task.id}", seed=9) for task in TASKS * 2]
TEXTS = [task.text for task in TASKS]
TRAINED = "steps=1,learning_rate=0.01,batch=2"
IMAGES = (
    "plain",
    "img2img:0.5",
    "inpaint",
    "completion:0.5",
    "noising,etas=1,scales=1",
    "recall,rounds=1,iterations=1",
    "null-text,steps=2,iterations=1",
    "tina,steps=2,iterations=1",
    "classifier-guidance:{0},scales=5,pictures=2,steps=2,batch=2,width=4",
)
WEIGHTS = (
    f"relearn:unsafe,unsafe=2,probes=1,checks=1,{TRAINED}",
    f"relearn:unsafe,unsafe=2,probes=1,checks=1,lora=2,{TRAINED}",
    f"lora-on-top:{{0}},rank=2,{TRAINED}",
    f"backdoor:{{0}},unsafe=2,rank=2,{TRAINED}",
    f"distil:{{0}},draws=2,{TRAINED}",
    "merge:0.5",
    "quantise:4",
)
WORDS = (
    "p4d:n,tokens=2,iterations=1,interval=1,latents=2",
    "p4d:k,iterations=1,interval=1,latents=2",
    "unlearndiffatk:unnamed,tokens=2,rounds=1,iterations=1",
    "concept-inversion,pictures=2,steps=1,batch=2",
    "mma,tokens=3,rounds=1,iterations=1,top=4,candidates=4",
    "ring-a-bell,length=3,population=4,generations=1",
    "random-tokens,candidates=1",
    "sneakyprompt:p,queries=1",
)
target_of = partial(tiny_targets.target_of, detector=Never(), examples=EXAMPLES, steps=2)


@pytest.fixture(scope="module", params=["sd3", "sdxl"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    """Each family's pipeline; attacks leave it as it was."""
    return build(request.param)


def latents(seed: int = 0, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def decoded(pipeline: Any, z: torch.Tensor) -> np.ndarray:
    config = pipeline.vae.config
    pixels = pipeline.vae.decode(z / config.scaling_factor + (config.shift_factor or 0)).sample
    picture: np.ndarray = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
    return picture


def assert_it_runs(pipeline: Any, spec: str) -> None:
    """And it leaves the model as it was."""
    denoiser, scheduler = denoiser_of(pipeline), pipeline.scheduler
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    target = replace(target_of(pipeline), clip=load_clip("lab"))
    found = strike(target, create_attack(spec), TASKS)
    assert len(found) == 2
    for each in found:
        assert (each.image.shape, each.image.dtype, each.score) == ((64, 64, 3), np.uint8, 0.0)
    assert not np.array_equal(found[0].image, found[1].image)
    assert denoiser_of(pipeline) is denoiser
    assert pipeline.scheduler is scheduler
    assert all(torch.equal(value, before[n]) for n, value in denoiser.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in denoiser.parameters())


@pytest.mark.parametrize("spec", [*IMAGES, *WEIGHTS, *WORDS])
def test_every_attack_runs_and_leaves_the_model_as_it_was(
    pipeline: Any, folder: FolderPictures, spec: str
) -> None:
    assert_it_runs(pipeline, spec.format(folder.folder))


def test_conditions_draw_what_their_texts_do(pipeline: Any) -> None:
    target = target_of(pipeline)
    with defended(pipeline, "none"):
        plain, told = target.draw(TASKS), target.draw(TASKS, condition=target.embed(TEXTS))
        other = target.draw(TASKS, condition=target.embed(TEXTS[::-1]))
    for sample, same, different in zip(plain, told, other, strict=True):
        assert np.abs(sample.image.astype(int) - same.image).max() <= 1
        assert not np.array_equal(sample.image, different.image)


def test_clean_latents_come_from_all_conditions_and_no_hook_runs(pipeline: Any) -> None:
    target, z, times = target_of(pipeline), latents(), torch.tensor([900, 100])
    condition = target.embed(TEXTS)
    clean = target.clean(z, times, condition).detach()
    handle = denoiser_of(pipeline).register_forward_pre_hook(lambda *_: 1 / 0)
    assert torch.equal(target.clean(z, times, condition).detach(), clean)
    handle.remove()
    for name, value in condition.embeddings.items():
        moved = condition.with_embeddings({**condition.embeddings, name: value + 1})
        assert not torch.allclose(target.clean(z, times, moved), clean, atol=1e-4)


@torch.no_grad()
def test_on_a_flow_it_is_the_end_of_the_straight_path() -> None:
    pipeline = build("sd3")
    target, z, times = target_of(pipeline), latents(), torch.tensor([900, 100])
    text = target.embed(TEXTS)
    velocity = pipeline.transformer(z, text.hidden, text.pooled, times, return_dict=False)[0]
    expected = z - times.view(-1, 1, 1, 1) / 1000 * velocity
    torch.testing.assert_close(target.clean(z, times, text), expected)
    merge_zero_tokens(pipeline.transformer)
    lengths: list[int] = []
    block = pipeline.transformer.transformer_blocks[0]
    block.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["encoder_hidden_states"].shape[1]),
        with_kwargs=True,
    )
    torch.testing.assert_close(target.clean(z, times, text), expected, atol=1e-4, rtol=1e-4)
    assert lengths == [78]  # CLIP's tokens, and one for T5's zeros


def test_the_objective_of_training_is_flow_matchings() -> None:
    pipeline = build("sd3")
    target, z_0 = target_of(pipeline), latents(count=1)
    text = target.embed(TEXTS[:1])
    loss = training_loss(target, Lesson(z_0, text), 3, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    torch.randint(1, (3,), generator=generator)
    places = torch.rand(3, generator=generator)
    times = 1 + (3 * places / (1 + 2 * places) * 1000).long()
    noise = torch.randn(3, 4, 8, 8, generator=generator)
    z_t = torch.lerp(z_0.expand(3, -1, -1, -1), noise, times.view(-1, 1, 1, 1) / 1000)
    many = text.expand(3)
    velocity = pipeline.transformer(z_t, many.hidden, many.pooled, times, return_dict=False)[0]
    expected = torch.nn.functional.mse_loss(velocity, noise - z_0)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_the_path_of_an_inversion_is_the_pipelines_own(pipeline: Any) -> None:
    target = target_of(pipeline)
    path = TextFreePath(target, TinaSettings(steps=4, iterations=8, learning_rate=5e-3, energy=0))
    condition, errors = path.empty.expand(2), []
    for iterations in (0, 8):
        path.settings = replace(path.settings, iterations=iterations)
        with frozen(pipeline):
            noise = path.invert(latents())
        z = noise
        with torch.no_grad():
            for level in range(4):
                z = path.move(z, path.heading(z, level, condition), level, level + 1)
        errors.append(float((z - latents()).square().mean()))
        drawn = draw_from(target, TASKS, noise, path.scheduler, condition)
        for sample, picture in zip(drawn, decoded(pipeline, z), strict=True):
            assert np.abs(sample.image - picture).max() <= 1
    assert errors[1] < 0.8 * errors[0]


def test_each_step_of_null_text_has_its_own_embeddings(pipeline: Any) -> None:
    target = target_of(pipeline)
    inversion = Inversion(target, TASKS, NullTextSettings(steps=3))
    generator = torch.Generator().manual_seed(1)
    like = inversion.null.embeddings
    embeddings: list[TextCondition] = [
        inversion.null.with_embeddings(
            {name: torch.randn(value.shape, generator=generator) for name, value in like.items()}
        )
        for _ in range(3)
    ]
    samples, z = inversion.draw(latents(), embeddings), latents()
    with torch.no_grad():
        for level, embedding in enumerate(embeddings):
            u, c = (inversion.heading(z, level, each) for each in (embedding, inversion.text))
            z = inversion.move(z, u + TASKS[0].guidance * (c - u), level, level + 1)
    for sample, picture in zip(samples, decoded(pipeline, z), strict=True):
        assert np.abs(sample.image - picture).max() <= 1


def test_null_text_moves_what_the_encoders_say_and_comes_nearer(pipeline: Any) -> None:
    target = target_of(pipeline)
    inversion = Inversion(target, TASKS, NullTextSettings(4, iterations=6, learning_rate=0.05))
    pivot = inversion.invert(latents())
    errors = []
    with frozen(pipeline):
        embeddings, spent = inversion.optimise(pivot)
    assert spent == [4 * 6] * 2
    for found in ([inversion.null] * 4, embeddings):
        drawn = np.stack([each.image for each in inversion.draw(pivot[-1], found)])
        errors.append(np.abs(drawn - decoded(pipeline, latents())).mean())
    assert errors[1] < errors[0]
    for name, value in embeddings[-1].embeddings.items():
        assert not torch.equal(value, inversion.null.embeddings[name])
    said = (inversion.text.hidden != 0).any(dim=2)
    assert bool((embeddings[-1].hidden[~said] == 0).all())  # a missing T5's tokens


def test_the_teachers_step_on_a_flow_is_eulers() -> None:
    pipeline = build("sd3")
    target, scheduler = target_of(pipeline), sampler_for(pipeline.scheduler, "euler")
    scheduler.set_timesteps(50)
    texts, nothing = target.embed(TEXTS), encode_prompts(pipeline, [""])
    settings = DistilSettings(guidance=3.0)
    student = Student(target, {}, Lesson(latents(), texts), nothing, settings)
    assert path_of(pipeline.scheduler, 50)[-1] == 1000
    z, (time, after) = latents(), scheduler.timesteps[20:22]
    with torch.no_grad():
        u, c = (
            pipeline.transformer(z, each.hidden, each.pooled, time[None], return_dict=False)[0]
            for each in (nothing.expand(2), texts)
        )
        expected = scheduler.step(u + 3.0 * (c - u), time, z).prev_sample
        found = student.step(z, time.expand(2), after.expand(2), texts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["flux", "sana", "pixart", "hunyuan-dit", "qwen-image"])
def test_weights_of_other_families_are_trained_and_put_back(family: str) -> None:
    assert_it_runs(build(family), WEIGHTS[0])


@pytest.mark.parametrize("family", ["sana", "pixart", "hunyuan-dit"])
def test_pictures_of_other_families_are_inverted(family: str) -> None:
    assert_it_runs(build(family), "tina,steps=2,iterations=1")


def test_what_it_cannot_do_is_refused() -> None:
    joint, flux = build("sd3"), build("flux")
    joint.text_encoder_3 = t5()[1]
    for spec in WORDS[:4]:
        with pytest.raises(SafegenError, match="its T5EncoderModel does not take; attack it with"):
            strike(target_of(joint), create_attack(spec), TASKS)
    with pytest.raises(SafegenError, match="FluxPipeline: how guidance hands its unconditional"):
        strike(target_of(flux), create_attack("null-text"), TASKS)
    for pipeline in (flux, build("z-image")):  # one by the picture's size, one by its call
        with pytest.raises(SafegenError, match="its call sets noise levels of its own"):
            strike(target_of(pipeline), create_attack("img2img:0.5"), TASKS)
    with pytest.raises(SafegenError, match="WanPipeline: samples latents in a layout of its own"):
        strike(target_of(build("wan")), create_attack("classifier-guidance"), TASKS)
