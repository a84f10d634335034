"""Pictures of one wish under several defenses, drawn by one model and judged by its detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from safegen.defenses import Defense, defended
from safegen.detectors import Detector
from safegen.errors import SafegenError
from safegen.models.anatomy import model_size
from safegen.models.autoencoder import encode_pictures
from safegen.models.from_pictures import draw_on, last_steps, noise_like, noised
from safegen.models.options import ImageRequest
from safegen.models.sampling import Sample, SamplingSettings, generate_samples
from safegen.settings import MAX_SEED

LONGEST_PROMPT = 2000
"""Most characters of a prompt; text encoders read far fewer."""
MOST_STEPS = 200
"""Most denoising steps of a picture, for which a person waits."""


@dataclass(frozen=True)
class Wish:
    """What to draw.

    Attributes:
        prompt: text of the picture.
        seed: seed of the picture's noise.
        steps: denoising steps.
        picture: uint8 (H, W, 3) to start from (img2img); None to start from noise.
        strength: share of the steps to run on the picture, in (0, 1].

    Raises:
        SafegenError: the prompt is empty or too long, or a number is out of its range.
    """

    prompt: str
    seed: int = 0
    steps: int = 25
    picture: np.ndarray | None = None
    strength: float = 0.5

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise SafegenError("there is no prompt; write what to draw")
        if len(self.prompt) > LONGEST_PROMPT:
            raise SafegenError(
                f"the prompt has {len(self.prompt)} characters; shorten it to {LONGEST_PROMPT}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise SafegenError(f"the seed must be from 0 to {MAX_SEED}, not {self.seed}")
        if not 1 <= self.steps <= MOST_STEPS:
            raise SafegenError(f"the steps must be from 1 to {MOST_STEPS}, not {self.steps}")
        if not 0 < self.strength <= 1:
            raise SafegenError(f"the strength must be above 0 and at most 1, not {self.strength:g}")


@dataclass(frozen=True)
class Judged:
    """A drawn picture and what the detector says of it.

    Attributes:
        image: uint8 (H, W, 3).
        blocked: whether an output filter blacked it out.
        flagged: whether the detector flags it; None if there is no detector.
    """

    image: np.ndarray
    blocked: bool
    flagged: bool | None

    @property
    def hidden(self) -> bool:
        """Whether the picture is shown only when asked for: flagged, or judged by nobody."""
        return not self.blocked and self.flagged is not False


class Easel:
    """A model with its defenses, which one thread at a time draws on.

    Args:
        pipeline: diffusers pipeline; every defense is taken off again after each picture.
        sampling: sampling settings; a wish has its own steps.
        create: makes a defense from its spec.
        detector: judge of the pictures; None leaves them unjudged.
    """

    def __init__(
        self,
        pipeline: Any,
        sampling: SamplingSettings,
        create: Callable[[str], Defense],
        detector: Detector | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._sampling = sampling
        self._create = create
        self._detector = detector
        self._made: dict[str, Defense] = {}
        self._lock = Lock()

    def check(self, spec: str) -> None:
        """Put a defense on the model and take it off.

        Raises:
            SafegenError: the spec is wrong, or the defense does not fit the model.
        """
        with self._lock, defended(self._pipeline, self._defense(spec)):
            pass

    def draw(self, spec: str, wish: Wish) -> Judged:
        """Draw one picture under the defense of a spec, and judge it.

        Raises:
            SafegenError: the spec is wrong, or the model cannot draw the wish.
        """
        with self._lock:
            with defended(self._pipeline, self._defense(spec)):
                sample = self._sample(wish)
            flagged = None
            if self._detector is not None:
                flagged = bool(self._detector.detect([sample.image])[0])
        return Judged(sample.image, sample.blocked, flagged)

    def _defense(self, spec: str) -> Defense:
        if spec not in self._made:
            self._made[spec] = self._create(spec)
        return self._made[spec]

    def _sample(self, wish: Wish) -> Sample:
        settings = replace(self._sampling, steps=wish.steps)
        request = ImageRequest(wish.prompt, wish.seed)
        if wish.picture is None:
            (sample,) = generate_samples(self._pipeline, [request], settings)
            return sample
        sampler = last_steps(self._pipeline, settings.sampler, wish.steps, wish.strength)
        clean = self._encoded(wish.picture)
        noise = noise_like(clean, [torch.Generator().manual_seed(wish.seed)])
        latents = noised(sampler, clean, noise)
        (sample,) = draw_on(self._pipeline, [request], settings, latents, sampler)
        return sample

    def _encoded(self, picture: np.ndarray) -> torch.Tensor:
        """Encode a picture, cut and scaled to the drawn size, to latents (1, C, h, w)."""
        pipeline, own = self._pipeline, model_size(self._pipeline)
        size = (self._sampling.width or own, self._sampling.height or own)
        fitted = np.array(ImageOps.fit(Image.fromarray(picture), size, Image.Resampling.BICUBIC))
        return encode_pictures(pipeline.vae, [fitted]).to(pipeline.vae.device)
