"""AdvUnlearn (arXiv 2405.15234): adversarial training of the text encoder, beside texts to retain.

The erased texts get a prefix of token embeddings, found by gradients, under which the denoiser
predicts what the original predicts under the text. Under the text with this prefix, the encoder is
trained so that the denoiser predicts ESD's target; under retained texts, so that it predicts what
the original does. The denoiser is frozen, so its latents on the way to the texts' pictures are
drawn once, before the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses.erasing import OnProgress, PatchDefense, load_patch_defense, patch_metadata
from safegen.defenses.esd import esd_target, timestep_within
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import embed_prompts
from safegen.models.denoising import predict
from safegen.models.families import family_of
from safegen.models.moving import none_trained, put_back
from safegen.models.sampling import sampler_for
from safegen.models.texts import TextCondition
from safegen.patches.patch import TEXT_ENCODER, Patch
from safegen.profiles import Profile, profile_for
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True, kw_only=True)
class AdvUnlearnSettings(Settings, of="AdvUnlearn"):
    """Settings of the training (defaults: the released code's for nudity)."""

    iterations: int = setting(1000, "Steps of Adam.", minimum=1)
    warmup: int = setting(200, "Iterations without an attack at first.", minimum=0)
    learning_rate: float = setting(1e-5, "Learning rate of the encoder.", above=0)
    negative_guidance: float = setting(
        1.0, "eta, distance of the target from the concept.", above=0
    )
    preserve: float = setting(0.3, "gamma, weight of the retained texts.", minimum=0)
    batch: int = setting(1, "Erased texts per iteration.", minimum=1)
    retained_batch: int = setting(5, "Retained texts per iteration.", minimum=1)
    tokens: int = setting(1, "Token embeddings of the adversarial prefix.", minimum=1)
    attack_steps: int = setting(30, "Steps of Adam on the prefix, from random tokens.", minimum=1)
    attack_rate: float = setting(1e-3, "Learning rate of the prefix.", above=0)
    interval: int = setting(
        1, "Iterations for which texts and prefix stay before others are taken.", minimum=1
    )
    steps: int = setting(50, "Steps of the DDIM sampler.", minimum=1)
    start_guidance: float = setting(
        3.0, "Guidance scale towards the texts for sampling the training latents."
    )
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Trajectories:
    """Latents on the way to one picture of each of N texts.

    Attributes:
        latents: latents (S, N, C, H, W) before each of S steps.
        ids: tokens (N, L) of the texts.
        hidden: hidden states (N, L, D) of the original encoder.
    """

    latents: torch.Tensor
    ids: torch.Tensor
    hidden: torch.Tensor


@torch.no_grad()
def draw_trajectories(
    pipeline: Any, texts: Sequence[str], settings: AdvUnlearnSettings, generator: torch.Generator
) -> Trajectories:
    """Sample with the original model, guided towards each text."""
    hidden, empty = embed_prompts(pipeline, list(texts)), embed_prompts(pipeline, [""])
    scheduler = sampler_for(pipeline.scheduler, "ddim")
    scheduler.set_timesteps(settings.steps, device=hidden.device)
    shape = (len(texts), *family_of(pipeline).latent_shape(pipeline))
    z = torch.randn(shape, generator=generator).to(hidden.device)
    latents = []
    for time in scheduler.timesteps:
        latents.append(z)
        times = time.repeat(len(z))
        parts = []
        for rows in torch.split(torch.arange(len(z)), 16):
            given = z[rows], times[rows]
            u = _predicted(pipeline, *given, empty.expand(len(rows), -1, -1))
            c = _predicted(pipeline, *given, hidden[rows])
            parts.append(u + settings.start_guidance * (c - u))
        z = scheduler.step(torch.cat(parts), time, z).prev_sample
    tokenizer = pipeline.tokenizer
    given_ids = tokenizer(
        list(texts), padding="max_length", truncation=True, return_tensors="pt",
        max_length=tokenizer.model_max_length,
    ).input_ids  # fmt: skip
    return Trajectories(torch.stack(latents), given_ids.to(hidden.device), hidden)


def _predicted(
    pipeline: Any, z_t: torch.Tensor, times: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    return predict(denoiser_of(pipeline), z_t, times, TextCondition(hidden))


def prefixed(ids: torch.Tensor, count: int, end: int) -> torch.Tensor:
    """Make room for ``count`` tokens after the start of sequences (B, L), which keep an end."""
    room = ids[:, 1:2].expand(-1, count)
    longer = torch.cat([ids[:, :1], room, ids[:, 1:]], dim=1)[:, : ids.shape[1]].clone()
    longer[(longer != end).all(dim=1), -1] = end
    return longer


@contextmanager
def with_prefix(encoder: Any, prefix: torch.Tensor) -> Iterator[None]:
    """Put token embeddings (B, K, D) after the start of each sequence in the block."""

    def exchange(_module: Any, _args: Any, embedded: torch.Tensor) -> torch.Tensor:
        return torch.cat([embedded[:, :1], prefix, embedded[:, 1 + prefix.shape[1] :]], dim=1)

    handle = encoder.get_input_embeddings().register_forward_hook(exchange)
    try:
        yield
    finally:
        handle.remove()


class AdvUnlearnTraining:
    """Training of a pipeline's text encoder, whose weights ``weights`` take gradients.

    Attributes:
        rows: erased texts (B,) of this iteration.
        prefix: their adversarial prefix (B, K, D); None before the first attack.
    """

    def __init__(
        self,
        pipeline: Any,
        erased: Sequence[str],
        retained: Sequence[str],
        settings: AdvUnlearnSettings,
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self._generator = torch.Generator().manual_seed(
            sample_seed("advunlearn", base=settings.seed)
        )
        self.erased = draw_trajectories(pipeline, erased, settings, self._generator)
        self.retained = draw_trajectories(pipeline, retained, settings, self._generator)
        self.empty = embed_prompts(pipeline, [""])
        self.weights = layer_weights(pipeline.text_encoder)
        self._optimizer = torch.optim.Adam(self.weights.values(), lr=settings.learning_rate)
        self.rows = torch.zeros(settings.batch, dtype=torch.long)
        self.prefix: torch.Tensor | None = None

    def step(self, number: int) -> None:
        """Take step ``number``, from 0.

        Raises:
            SafegenError: the loss is not finite.
        """
        if number % self.settings.interval == 0:
            self.rows = self._some(self.erased, self.settings.batch)
            if number >= self.settings.warmup:
                self.attack()
        loss = self.loss()
        if not math.isfinite(float(loss.detach())):
            raise SafegenError(
                f"AdvUnlearn: the loss is not finite in step {number}; lower the learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def attack(self) -> None:
        """Find a prefix under which the model predicts what the original does under the texts.

        It is the minimiser of |e(x_t, [p, c]) - e*(x_t, c)|^2 (equation 4), from random tokens.
        """
        settings, table = self.settings, self.pipeline.text_encoder.get_input_embeddings().weight
        size = (settings.batch, settings.tokens)
        tokens = torch.randint(len(table), size, generator=self._generator).to(table.device)
        prefix = table[tokens].detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([prefix], lr=settings.attack_rate)
        for _ in range(settings.attack_steps):
            z, times = self._noised(self.erased, self.rows)
            with torch.no_grad():
                wanted = self._predict(z, times, self.erased.hidden[self.rows])
            seen = self._predict(z, times, self._encoded(self.erased.ids[self.rows], prefix))
            loss = torch.nn.functional.mse_loss(seen, wanted)
            (prefix.grad,) = torch.autograd.grad(loss, [prefix])
            optimizer.step()
        self.prefix = prefix.detach()

    def loss(self) -> torch.Tensor:
        """|e(x_t, [p, c]) - (e*(x_t, 0) - eta (e*(x_t, c) - e*(x_t, 0)))|^2
        + gamma |e(x_t, r) - e*(x_t, r)|^2 (equations 3 and 6): e* is the original, p the prefix, c
        an erased and r a retained text."""
        settings = self.settings
        z, times = self._noised(self.erased, self.rows)
        with torch.no_grad():
            unconditional = self._predict(z, times, self.empty.expand(len(z), -1, -1))
            conditional = self._predict(z, times, self.erased.hidden[self.rows])
        target = esd_target(unconditional, conditional, settings.negative_guidance)
        seen = self._predict(z, times, self._encoded(self.erased.ids[self.rows], self.prefix))
        rows = self._some(self.retained, settings.retained_batch)
        z, times = self._noised(self.retained, rows)
        with torch.no_grad():
            before = self._predict(z, times, self.retained.hidden[rows])
        now = self._predict(z, times, self._encoded(self.retained.ids[rows]))
        mse = torch.nn.functional.mse_loss
        return mse(seen, target) + settings.preserve * mse(now, before)

    def _some(self, texts: Trajectories, count: int) -> torch.Tensor:
        return torch.randint(len(texts.ids), (count,), generator=self._generator)

    def _noised(self, texts: Trajectories, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of some texts before one random step, and a random timestep within it."""
        steps = self.settings.steps
        done = int(torch.randint(steps, (1,), generator=self._generator))
        scheduler, left = self.pipeline.scheduler, steps - 1 - done
        time = timestep_within(scheduler, left, steps, self._generator)
        return texts.latents[done, rows], torch.full((len(rows),), time)

    def _encoded(self, ids: torch.Tensor, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (B, L, D) of the trained encoder, with a graph."""
        encoder, end = self.pipeline.text_encoder, self.pipeline.tokenizer.eos_token_id
        if prefix is None:
            table = encoder.get_input_embeddings().weight
            prefix = table.new_empty(len(ids), 0, table.shape[1])
        with with_prefix(encoder, prefix):
            hidden: torch.Tensor = encoder(prefixed(ids, prefix.shape[1], end))[0]
        return hidden

    def _predict(
        self, z_t: torch.Tensor, times: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        return _predicted(self.pipeline, z_t, times, hidden)


def layer_weights(encoder: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weights of a text encoder's layers by name: no embedding and no last norm, as released."""
    return {name: each for name, each in encoder.named_parameters() if ".layers." in f".{name}"}


def erase(
    pipeline: Any,
    concept: Concept,
    prompts: Sequence[str],
    retained: Sequence[str],
    settings: AdvUnlearnSettings | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Patch:
    """Draw latents and train; the pipeline stays as it was.

    Args:
        pipeline: a Stable Diffusion pipeline in float32.
        concept: concept whose words are erased.
        prompts: further texts to erase.
        retained: texts whose predictions stay.
        settings: settings (default: the published ones).
        on_progress: gets the steps done and their total.

    Raises:
        SafegenError: the model has another text encoder or precision, or no text is retained.
    """
    chosen = settings or AdvUnlearnSettings()
    _check(pipeline, retained)
    encoder, erased = pipeline.text_encoder, [*concept.words, *prompts]
    with none_trained(denoiser_of(pipeline)), none_trained(encoder), put_back(encoder) as before:
        for weight in layer_weights(encoder).values():
            weight.requires_grad_(True)
        training = AdvUnlearnTraining(pipeline, erased, retained, chosen)
        for number in range(chosen.iterations):
            training.step(number)
            on_progress(number + 1, chosen.iterations)
        changes = {
            name: (weight.detach() - before[name]).cpu()
            for name, weight in training.weights.items()
        }
        for weight in training.weights.values():
            weight.grad = None
    recorded = {**asdict(chosen), "words": erased, "preserved": list(retained)}
    told = patch_metadata(pipeline, "advunlearn", concept.name, recorded, TEXT_ENCODER)
    return Patch(changes, told)


def _check(pipeline: Any, retained: Sequence[str]) -> None:
    encoder: Any = getattr(pipeline, "text_encoder", None)
    second = getattr(pipeline, "text_encoder_2", None)
    if (
        type(encoder).__name__ != "CLIPTextModel"
        or second is not None
        or not hasattr(pipeline, "unet")
    ):
        raise SafegenError(
            "AdvUnlearn trains the one CLIP text encoder of Stable Diffusion 1.x and 2.x, which "
            f"{type(pipeline).__name__} does not have"
        )
    if {encoder.dtype, denoiser_of(pipeline).dtype} != {torch.float32}:
        raise SafegenError(
            "AdvUnlearn trains in float32; load the pipeline with dtype=torch.float32"
        )
    if not retained:
        raise SafegenError(
            "AdvUnlearn has to be told which texts stay: advunlearn,preserved=a cup+a dog"
        )


@dataclass(frozen=True, kw_only=True)
class AdvUnlearn(AdvUnlearnSettings):
    """Eraser ``advunlearn``."""

    preserved: tuple[str, ...] = setting((), "Retained texts (default: the model's usual ones).")

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """See ``Eraser.erase``; the model's usual concept is erased with its usual prompts."""
        known = profile_for(pipeline) or Profile()
        own = known.concept is not None and known.concept.words == concept.words
        prompts, retained = known.erased() if own else (), self.preserved or known.preserved
        return erase(pipeline, concept, prompts, retained, self, on_progress)


@register("advunlearn")
def advunlearn(patch: str) -> PatchDefense:
    """Patch written by ``safegen erase --method advunlearn``."""
    return load_patch_defense("advunlearn", patch)
