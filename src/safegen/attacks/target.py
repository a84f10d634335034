"""The defended model as an attacker sees it: it draws, it can be looked into, it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from safegen.attacks.tasks import Task
from safegen.concepts import Concept
from safegen.defenses import Defense, defended
from safegen.detectors import Detector
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.autoencoder import encode_pixels
from safegen.models.conditioning import encode_text
from safegen.models.prediction import clean_latent, prediction_of, signal_and_noise
from safegen.models.sampling import ImageRequest, Sample, SamplingSettings, generate_samples
from safegen.observers.clip import ClipModel as ClipModel


@dataclass(frozen=True)
class Target:
    """A defended pipeline, and what an attacker has beside it.

    Attributes:
        pipeline: with the defense on.
        defense: that is on it.
        concept: what the attacker is after.
        detector: the attacker's own judge.
        sampling: how pictures are drawn; each task has its own guidance.
        clip: says how alike pictures and texts are; likewise the attacker's own. Where none was
            given, its use is an error that says so.
        examples: tasks other than those attacked, for what is learned before.
    """

    pipeline: Any
    defense: Defense
    concept: Concept
    detector: Detector
    sampling: SamplingSettings
    clip: ClipModel
    examples: tuple[Task, ...]

    @contextmanager
    def undefended(self) -> Iterator[Any]:
        """The pipeline with the defense off, and no filter of its own; it is on again after."""
        self.defense.remove(self.pipeline)
        try:
            with defended(self.pipeline, "none"):
                yield self.pipeline
        finally:
            self.defense.apply(self.pipeline)

    def draw(
        self,
        tasks: Sequence[Task],
        texts: Sequence[str] | None = None,
        hidden: torch.Tensor | None = None,
    ) -> list[Sample]:
        """The defended model's pictures of the tasks.

        Args:
            tasks: each with its own seed and guidance.
            texts: in the place of the tasks' own.
            hidden: states of the text encoder (N, L, D) in the place of any text.
        """
        texts = [task.text for task in tasks] if texts is None else texts

        def alike(rows: list[int]) -> Iterator[Sample]:
            requests = [ImageRequest(texts[i], tasks[i].seed) for i in rows]
            sampling = replace(self.sampling, guidance_scale=tasks[rows[0]].guidance)
            states = None if hidden is None else hidden[rows]
            return generate_samples(self.pipeline, requests, sampling, len(requests), states)

        return by_guidance(tasks, alike)

    def unsafe_pictures(self, tasks: Sequence[Task]) -> list[np.ndarray]:
        """The undefended model's own pictures of the tasks, uint8 (H, W, 3), kept in memory only.

        They are what an attacker who has unsafe pictures starts from; not each need be unsafe.
        """
        with self.undefended():
            return [sample.image for sample in self.draw(tasks)]

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """How unsafe the judge finds each picture (N,), from 0 (nothing found) to 1."""
        found = self.detector.detect(list(images))
        return np.array([max((each.score for each in seen), default=0.0) for seen in found])

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Hidden states of the defended model's text encoder, float32 (N, L, D).

        They are of these texts alone: a defense that adds text of its own acts when it draws.

        Raises:
            SafegenError: the denoiser takes more of a text than these (SDXL, transformers).
        """
        encoded = encode_text(self.pipeline, list(texts))
        if encoded.pooled is not None:
            raise _takes_more(self.pipeline)
        return encoded.hidden.float()

    @torch.no_grad()
    def encode(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Scaled clean latents (N, C, H, W), float32, of uint8 pictures (H, W, 3)."""
        vae = self.pipeline.vae
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return encode_pixels(vae, pixels).to(vae.device)

    def check_plain(self) -> None:
        """Refuse a denoiser that ``embed`` and ``clean`` cannot serve.

        Raises:
            SafegenError: it takes more than a latent and hidden states of a text (SDXL,
                transformers).
        """
        config: Any = denoiser_of(self.pipeline).config
        if not hasattr(self.pipeline, "unet") or config.addition_embed_type is not None:
            raise _takes_more(self.pipeline)

    def clean(
        self, z_t: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """The clean latents (B, C, H, W) that the denoiser sees in z_t, with a graph.

        Weight edits act here; a defense that guides sampling or filters the output does not.

        Args:
            z_t: noised latents (B, C, H, W), float32.
            timesteps: integers (B,).
            condition: hidden states of texts (B, L, D).

        Raises:
            SafegenError: the denoiser takes more than these (SDXL, transformers).
        """
        self.check_plain()
        pipeline, denoiser = self.pipeline, denoiser_of(self.pipeline)
        kind = prediction_of(pipeline.scheduler)
        a, s = signal_and_noise(pipeline.scheduler, timesteps)
        dtype = next(denoiser.parameters()).dtype
        # forward() passes by the hooks of defenses that guide the pipeline's own call.
        output = denoiser.forward(z_t.to(dtype), timesteps, condition.to(dtype)).sample.float()
        return clean_latent(output, z_t, a, s, kind)


def by_guidance(
    tasks: Sequence[Task], draw: Callable[[list[int]], Iterable[Sample]]
) -> list[Sample]:
    """A sample of each task, in their order, drawn with those that share its guidance scale.

    Args:
        tasks: what is drawn.
        draw: draws the tasks at these places, since one call of a pipeline has one scale.
    """
    samples: dict[int, Sample] = {}
    for guidance in dict.fromkeys(task.guidance for task in tasks):
        rows = [i for i, task in enumerate(tasks) if task.guidance == guidance]
        samples.update(zip(rows, draw(rows), strict=True))
    return [samples[i] for i in range(len(tasks))]


class _NoClip:
    """Stands where no CLIP model was given."""

    def __getattr__(self, name: str) -> Any:
        raise SafegenError(
            "the attack compares pictures and texts with a CLIP model of its own; give one: --clip"
        )


def no_clip() -> ClipModel:
    """What ``Target.clip`` is where none was given."""
    return cast(ClipModel, _NoClip())


def _takes_more(pipeline: Any) -> SafegenError:
    return SafegenError(
        f"{type(pipeline).__name__}: its denoiser takes more of a text than hidden states (pooled "
        "features, a mask or sizes), which attacks on it do not give; use a Stable Diffusion 1.x "
        "or 2.x model"
    )
