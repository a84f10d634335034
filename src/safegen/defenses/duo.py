"""DUO (arXiv 2407.21035): preference optimisation on pairs of an unsafe and a safe picture.

No text takes part in the training: all predictions are under the empty prompt. The model is to
denoise the safe picture of a pair better than the frozen model does, and the unsafe one worse, and
to stay with the frozen model at the highest noise. A LoRA of self-attention is trained.

The pairs are the model's own, as in the paper: it draws unsafe prompts, and makes a safe picture
of each by noising it and drawing on without the prompt, away from the concept (SDEdit,
arXiv 2108.01073).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch

from safegen.concepts import Concept
from safegen.defenses import register, set_aside_checker
from safegen.defenses.erasing import OnProgress, PatchDefense, load_patch_defense, patch_metadata
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, self_attention_names
from safegen.models.autoencoder import encode_pictures
from safegen.models.conditioning import encode_prompts
from safegen.models.denoising import predict
from safegen.models.factors import LowRank, low_rank
from safegen.models.from_pictures import draw_on, last_steps, noise_like, noised
from safegen.models.moving import none_trained
from safegen.models.prediction import (
    add_noise,
    output_for,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)
from safegen.models.sampling import ImageRequest, SamplingSettings, generate_samples
from safegen.patches.patch import Patch
from safegen.profiles import Profile, profile_for
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting

HIGHEST = 1 - 1e-6
"""Place of the highest noise level among timesteps."""


@dataclass(frozen=True, kw_only=True)
class DuoSettings(Settings, of="DUO"):
    """Settings of the pairs and of the training (64 pairs, rank and beta are the paper's)."""

    pairs: int = setting(64, "Pairs of pictures.", minimum=1)
    strength: float = setting(
        0.75,
        "Share of the sampler's steps that make the safe picture from the unsafe one.",
        above=0,
        maximum=1,
    )
    rank: int = setting(32, "Rank of the factors.", minimum=1)
    steps: int = setting(1000, "Steps of AdamW.", minimum=1)
    batch: int = setting(4, "Pairs per step.", minimum=1)
    learning_rate: float = setting(1e-4, "Constant learning rate.", above=0)
    beta: float = setting(500.0, "Weight of the preference.", above=0)
    preserve: float = setting(
        1.0, "lambda, weight of the frozen model's output at the highest noise.", minimum=0
    )
    seed: int = setting(0, "Seed of all draws.", minimum=0, maximum=MAX_SEED)


def preference_loss(
    unsafe: torch.Tensor,
    unsafe_before: torch.Tensor,
    safe: torch.Tensor,
    safe_before: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """-log sigmoid(-beta ((safe - safe_before) - (unsafe - unsafe_before))), the mean.

    The paper's objective as the released code has it, after Diffusion-DPO (arXiv 2311.12908,
    equation 14): errors (B,) are mean squares of outputs, of the trained model and of the frozen
    one, and beta stands for beta T w.
    """
    difference = (safe - safe_before) - (unsafe - unsafe_before)
    return -torch.nn.functional.logsigmoid(-beta * difference).mean()


@dataclass(frozen=True)
class Pairs:
    """Clean latents of unsafe and of safe pictures, each (N, C, H, W)."""

    unsafe: torch.Tensor
    safe: torch.Tensor


def draw_pairs(pipeline: Any, prompts: Sequence[str], avoided: str, settings: DuoSettings) -> Pairs:
    """Draw pairs with the model itself.

    Args:
        pipeline: the undefended model.
        prompts: texts that ask for the concept, used in turn.
        avoided: text that the safe pictures are guided away from.
        settings: number of pairs and strength.
    """
    known = profile_for(pipeline) or Profile()
    sampling = SamplingSettings(**known.sampling)
    requests = [
        ImageRequest(prompt, sample_seed("duo", number, settings.seed))
        for number, prompt in enumerate(islice(cycle(prompts), settings.pairs))
    ]
    samples = generate_samples(pipeline, requests, sampling, settings.batch)
    unsafe = encode_pictures(pipeline.vae, [sample.image for sample in samples])
    away = replace(sampling, negative_prompt=avoided)
    wordless = [replace(request, prompt="") for request in requests]
    safe = []
    for start in range(0, len(requests), settings.batch):
        rows = slice(start, start + settings.batch)
        scheduler = last_steps(pipeline, sampling.sampler, sampling.steps, settings.strength)
        clean = unsafe[rows].to(next(denoiser_of(pipeline).parameters()).device)
        seeds = [torch.Generator().manual_seed(each.seed) for each in requests[rows]]
        begin = noised(scheduler, clean, noise_like(clean, seeds))
        safe += [each.image for each in draw_on(pipeline, wordless[rows], away, begin, scheduler)]
    return Pairs(unsafe, encode_pictures(pipeline.vae, safe))


class DuoTraining:
    """Training of factors beside a denoiser's self-attention, on pairs."""

    def __init__(
        self, pipeline: Any, factors: LowRank, pairs: Pairs, settings: DuoSettings
    ) -> None:
        self.pipeline = pipeline
        self.factors = factors
        self.pairs = pairs
        self.settings = settings
        self.empty = encode_prompts(pipeline, [""])
        self._generator = torch.Generator().manual_seed(sample_seed("duo", base=settings.seed))
        self._optimizer = torch.optim.AdamW(factors.parameters, lr=settings.learning_rate)

    def step(self, number: int) -> None:
        """Take a step.

        Raises:
            SafegenError: the loss is not finite.
        """
        loss = self.loss()
        if not math.isfinite(float(loss.detach())):
            raise SafegenError(
                f"DUO: the loss is not finite in step {number}; lower the learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def loss(self) -> torch.Tensor:
        """Loss of a random batch: the preference, and the distance at the highest noise.

        Both pictures of a pair get the same noise, which is also the input at the highest level,
        and a noise level each.
        """
        settings, generator = self.settings, self._generator
        rows = torch.randint(len(self.pairs.safe), (settings.batch,), generator=generator)
        z_0 = torch.cat([self.pairs.unsafe[rows], self.pairs.safe[rows]])
        noise = torch.randn(z_0[: len(rows)].shape, generator=generator)
        places = torch.rand(len(z_0), generator=generator)
        scheduler = self.pipeline.scheduler
        times = timesteps_at(scheduler, places)
        kind, (a, s) = prediction_of(scheduler), signal_and_noise(scheduler, times)
        z_t = add_noise(z_0, noise.repeat(2, 1, 1, 1), a, s)
        wanted = output_for(z_0, z_t, a, s, kind)
        top = timesteps_at(scheduler, torch.full((len(rows),), HIGHEST))
        inputs = torch.cat([z_t, noise]), torch.cat([times, top])
        now = self._predict(*inputs)
        with torch.no_grad(), self.factors.off():
            before = self._predict(*inputs)
        wanted = wanted.to(now.device)
        errors = (
            (output[: len(z_0)] - wanted).square().flatten(1).mean(dim=1).chunk(2)
            for output in (now, before)
        )
        (unsafe, safe), (unsafe_before, safe_before) = errors
        kept = (now[len(z_0) :] - before[len(z_0) :]).square().mean()
        told = (unsafe, unsafe_before, safe, safe_before, settings.beta)
        return preference_loss(*told) + settings.preserve * kept

    def _predict(self, z_t: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Output (B, C, H, W) under the empty prompt."""
        return predict(denoiser_of(self.pipeline), z_t, times, self.empty.expand(len(z_t)))


def erase(
    pipeline: Any,
    concept: Concept,
    prompts: Sequence[str] = (),
    settings: DuoSettings | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Patch:
    """Draw pairs and train; the pipeline stays as it was.

    Args:
        pipeline: the model, in float32.
        concept: concept that the prompts ask for.
        prompts: prompts that ask for the concept (default: its words).
        settings: settings (default: the published ones as far as they are known).
        on_progress: gets the steps done and their total.

    Raises:
        SafegenError: the model has no self-attention of its own, or is not in float32.
    """
    chosen, denoiser = settings or DuoSettings(), denoiser_of(pipeline)
    if next(denoiser.parameters()).dtype != torch.float32:
        raise SafegenError("DUO trains in float32; load the pipeline with dtype=torch.float32")
    asked = list(prompts or concept.words)
    checker = set_aside_checker(pipeline)
    try:
        pairs = draw_pairs(pipeline, asked, concept.text, chosen)
    finally:
        if checker is not None:
            pipeline.safety_checker = checker
    with (
        none_trained(denoiser),
        low_rank(denoiser, chosen.rank, chosen.seed, self_attention_names(denoiser)) as factors,
    ):
        training = DuoTraining(pipeline, factors, pairs, chosen)
        for number in range(1, chosen.steps + 1):
            training.step(number)
            on_progress(number, chosen.steps)
        changes = {name: change.cpu() for name, change in factors.changes().items()}
    recorded = {**asdict(chosen), "words": asked}
    return Patch(changes, patch_metadata(pipeline, "duo", concept.name, recorded))


@dataclass(frozen=True, kw_only=True)
class Duo(DuoSettings):
    """Eraser ``duo``."""

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """See ``Eraser.erase``; the model's usual concept has its usual prompts."""
        known = profile_for(pipeline) or Profile()
        own = known.concept is not None and known.concept.words == concept.words
        return erase(pipeline, concept, known.erased() if own else (), self, on_progress)


@register("duo")
def duo(patch: str) -> PatchDefense:
    """Patch written by ``safegen erase --method duo``."""
    return load_patch_defense("duo", patch)
