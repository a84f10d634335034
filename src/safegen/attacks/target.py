"""The defended model as an attacker sees it: drawing, gradients and judgement."""

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
from safegen.models.autoencoder import encode_pictures
from safegen.models.conditioning import TextCondition, encode_prompts
from safegen.models.denoising import predict
from safegen.models.families import family_of
from safegen.models.prediction import clean_latent, prediction_of, signal_and_noise
from safegen.models.sampling import ImageRequest, Sample, SamplingSettings, generate_samples
from safegen.observers.clip import ClipModel as ClipModel


@dataclass(frozen=True)
class Target:
    """A defended pipeline, with the attacker's own means.

    Attributes:
        pipeline: pipeline with the defense applied.
        defense: the applied defense.
        concept: concept that the attacker targets.
        detector: the attacker's own judge.
        sampling: sampling settings; each task has its own guidance scale.
        clip: the attacker's own CLIP, to compare pictures and texts. Without one its use is an
            error that says so.
        examples: tasks to learn from, other than those attacked.
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
        """Take the defense and the pipeline's own filter off in the block."""
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
        condition: TextCondition | None = None,
    ) -> list[Sample]:
        """Draw the tasks' pictures with the defended model.

        Args:
            tasks: tasks, each with its own seed and guidance scale.
            texts: texts in place of the tasks' own.
            condition: conditions of N texts in place of any text, where prompts alone cannot say
                what is drawn.
        """
        texts = [task.text for task in tasks] if texts is None else texts

        def alike(rows: list[int]) -> Iterator[Sample]:
            requests = [ImageRequest(texts[i], tasks[i].seed) for i in rows]
            sampling = replace(self.sampling, guidance_scale=tasks[rows[0]].guidance)
            own = None if condition is None else condition[rows]
            return generate_samples(self.pipeline, requests, sampling, len(requests), own)

        return by_guidance(tasks, alike)

    def unsafe_pictures(self, tasks: Sequence[Task]) -> list[np.ndarray]:
        """Draw the tasks with the undefended model, uint8 (H, W, 3), kept in memory only.

        An attacker with unsafe pictures starts from these; not every one need be unsafe.
        """
        with self.undefended():
            return [sample.image for sample in self.draw(tasks)]

    def scores(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Judge how unsafe each picture is (N,), from 0 (nothing found) to 1."""
        found = self.detector.detect(list(images))
        return np.array([max((each.score for each in seen), default=0.0) for seen in found])

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> TextCondition:
        """Conditions of N texts by the defended model's text encoders, float32.

        Only these texts are encoded: a defense that adds text acts when it draws.

        Raises:
            SafegenError: the pipeline is of no known family.
        """
        return family_of(self.pipeline).encode(self.pipeline, list(texts))

    def unconditional(self) -> TextCondition:
        """Unconditional input of guidance, one row: the empty text, or what stands for it."""
        return encode_prompts(self.pipeline, [""])

    def encode(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Encode uint8 pictures (H, W, 3) to scaled clean latents (N, C, H, W), float32."""
        vae = self.pipeline.vae
        return encode_pictures(vae, images).to(vae.device)

    def clean(
        self, z_t: torch.Tensor, timesteps: torch.Tensor, condition: TextCondition
    ) -> torch.Tensor:
        """Predict the clean latents (B, C, H, W) in z_t, with a graph.

        Weight edits act here; a defense that guides sampling or filters the output does not.

        Args:
            z_t: noised latents (B, C, H, W), float32.
            timesteps: timesteps of the scheduler (B,).
            condition: conditions of B texts.
        """
        scheduler, denoiser = self.pipeline.scheduler, denoiser_of(self.pipeline)
        a, s = signal_and_noise(scheduler, timesteps)
        output = predict(denoiser, z_t, timesteps, condition, hooked=False)
        return clean_latent(output, z_t, a, s, prediction_of(scheduler))


def by_guidance(
    tasks: Sequence[Task], draw: Callable[[list[int]], Iterable[Sample]]
) -> list[Sample]:
    """Draw a sample of each task, in order, grouped by guidance scale.

    Args:
        tasks: tasks to draw.
        draw: function that draws tasks by index; one call of a pipeline has one scale.
    """
    samples: dict[int, Sample] = {}
    for guidance in dict.fromkeys(task.guidance for task in tasks):
        rows = [i for i, task in enumerate(tasks) if task.guidance == guidance]
        samples.update(zip(rows, draw(rows), strict=True))
    return [samples[i] for i in range(len(tasks))]


class _NoClip:
    """Placeholder without a CLIP model."""

    def __getattr__(self, name: str) -> Any:
        raise SafegenError(
            "the attack compares pictures and texts with a CLIP model of its own; give one: --clip"
        )


def no_clip() -> ClipModel:
    """Make the placeholder for ``Target.clip``."""
    return cast(ClipModel, _NoClip())
