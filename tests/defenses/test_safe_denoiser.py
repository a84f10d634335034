"""Safe Denoiser against its paper's formulas in NumPy, and what the sampler gets at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses.safe_denoiser import repelled, unsafe_mean
from safegen.errors import SafegenError
from safegen.lab.concept import LAB_WEAPONS
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.triplets import create_triplets

KNIVES = Concept("knives", "a knife")
REQUESTS = [ImageRequest("a knife", 1), ImageRequest("a cat", 2)]


def latents(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def expected(
    z_t: np.ndarray, pictures: np.ndarray, a: float, s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Equation 6 and beta, one picture after another."""
    means, betas = [], []
    for z in z_t.astype(np.float64):
        squares = [((z - a * x) ** 2).sum() / (2 * s * s) for x in pictures.astype(np.float64)]
        weights = np.exp(np.min(squares) - np.array(squares))
        means.append(sum(w * x for w, x in zip(weights, pictures, strict=True)) / weights.sum())
        betas.append(np.mean([np.exp(-each / z.size) for each in squares]))
    return np.stack(means), np.array(betas)


def test_the_unsafe_mean_and_beta_are_the_papers() -> None:
    pictures, z_t = latents(5, 0), latents(2, 1)
    for a, s in ((0.1, 0.995), (0.9, 0.436)):
        mean, beta = unsafe_mean(z_t, pictures, torch.tensor(a), torch.tensor(s))
        by_hand = expected(z_t.numpy(), pictures.numpy(), a, s)
        np.testing.assert_allclose(mean, by_hand[0], atol=1e-3)
        np.testing.assert_allclose(beta, by_hand[1], rtol=1e-4)


def test_with_the_theorems_weight_the_safe_denoiser_is_exact() -> None:
    """Theorem 3.2 on points with known odds: the mean of the safe ones alone."""
    rng = np.random.default_rng(0)
    points, a, s = rng.normal(size=(7, 4)), 0.6, 0.8
    is_unsafe, z = np.array([1, 1, 0, 0, 0, 0, 1], bool), rng.normal(size=4)
    likely = np.exp(-((z - a * points) ** 2).sum(1) / (2 * s * s))

    def mean(rows: np.ndarray) -> torch.Tensor:
        found = (likely[rows, None] * points[rows]).sum(0) / likely[rows].sum()
        return torch.from_numpy(found).view(1, 4, 1, 1)

    weight = torch.tensor([likely[is_unsafe].sum() / likely[~is_unsafe].sum()])
    everything = mean(np.ones(7, bool))
    torch.testing.assert_close(repelled(everything, mean(is_unsafe), weight), mean(~is_unsafe))


@contextmanager
def predictions(pipeline: Any) -> Iterator[list[tuple[torch.Tensor, int, torch.Tensor]]]:
    """Latents, timestep and prediction of each step, as the sampler gets them."""
    seen: list[Any] = []

    def look(_module: Any, args: Any, _kwargs: Any, output: Any) -> None:
        seen.append((args[0].clone(), int(args[1]), output[0].clone()))

    handle = pipeline.unet.register_forward_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def draw(pipeline: Any, guidance: float) -> None:
    settings = SamplingSettings(steps=4, guidance_scale=guidance, sampler="ddim")
    list(generate(pipeline, REQUESTS, settings))


@pytest.mark.parametrize(("prediction", "guidance"), [("epsilon", 5.0), ("v_prediction", 1.0)])
def test_steps_at_high_noise_are_repelled_and_the_others_stay(
    build_pipeline: Callable[..., Any],
    tiny_latents: Any,
    tmp_path: Path,
    prediction: str,
    guidance: float,
) -> None:
    pipeline, file = build_pipeline(prediction_type=prediction), tmp_path / "triplets.safetensors"
    tiny_latents.save(file)
    defense = create_defense(f"safe-denoiser:{file},eta=0.7,start=0.5,count=4", KNIVES)
    with (
        predictions(pipeline) as before,
        defended(pipeline, defense),
        predictions(pipeline) as after,
    ):
        draw(pipeline, guidance)
    pictures, changed = tiny_latents.unsafe[:4].numpy(), []
    for (z, time, plain), (_, _, moved) in zip(before, after, strict=True):
        changed.append(not torch.equal(plain, moved))
        if time < 500:
            assert torch.equal(plain, moved)
            continue
        a = float(pipeline.scheduler.alphas_cumprod[time]) ** 0.5
        s, x = (1 - a * a) ** 0.5, z[:2].double().numpy()
        first = plain[:2].double().numpy()
        clean = (x - s * first) / a if prediction == "epsilon" else a * x - s * first
        unsafe, beta = expected(x, pictures, a, s)
        change = 0.7 * beta[:, None, None, None] * (clean - unsafe)
        factor = -a / s if prediction == "epsilon" else -1 / s
        halves = len(plain) // 2
        by_hand = plain.double().numpy() + np.tile(factor * change, (halves, 1, 1, 1))
        np.testing.assert_allclose(moved, by_hand, atol=1e-3)
    assert changed == [True, True, False, False]


def test_it_stacks_with_guidance_by_text_in_either_order(
    tiny_pipeline: Any, tiny_latents: Any, tmp_path: Path
) -> None:
    tiny_latents.save(file := tmp_path / "triplets.safetensors")
    drawn = []
    for spec in (f"sld-max+safe-denoiser:{file}", f"safe-denoiser:{file}+sld-max"):
        with defended(tiny_pipeline, create_defense(spec, KNIVES)):
            settings = SamplingSettings(steps=4, guidance_scale=5.0, sampler="euler")
            drawn.append([image for _, image in generate(tiny_pipeline, REQUESTS, settings)])
    for one, other in zip(*drawn, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_a_threshold_above_every_likelihood_leaves_all_as_it_is(
    tiny_pipeline: Any, tiny_latents: Any, tmp_path: Path
) -> None:
    tiny_latents.save(file := tmp_path / "triplets.safetensors")
    seen = []
    for spec in ("none", f"safe-denoiser:{file},threshold=0.99,start=0"):
        with defended(tiny_pipeline, create_defense(spec)), predictions(tiny_pipeline) as steps:
            draw(tiny_pipeline, 5.0)
            seen.append(steps)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(*seen, strict=True))


def test_what_does_not_fit_is_refused(
    build_pipeline: Callable[..., Any], tiny_latents: Any, tmp_path: Path
) -> None:
    tiny_latents.save(file := tmp_path / "triplets.safetensors")
    with pytest.raises(SafegenError, match="which pictures are unsafe; name a file"):
        create_defense("safe-denoiser", KNIVES)
    with pytest.raises(SafegenError, match="start must be a finite number"):
        create_defense("safe-denoiser,start=1", LAB_WEAPONS)
    with pytest.raises(SafegenError, match="encoded with another autoencoder"):
        create_defense(f"safe-denoiser:{file}").apply(build_pipeline(seed=3))
    with pytest.raises(SafegenError, match=r"latents are \(4, 32, 32\), and the model's"):
        create_defense("safe-denoiser,count=1", LAB_WEAPONS).apply(build_pipeline())


def test_the_labs_pictures_are_those_that_edits_train_on() -> None:
    identity = create_defense("safe-denoiser,count=8", LAB_WEAPONS).identity
    known = create_triplets(str(LAB_WEAPONS.triplets)).describe()
    assert identity.settings["pictures"] == {"triplets": "lab:weapons", **known}
    assert (known["split"], known["seed"]) == ("train", 0)
