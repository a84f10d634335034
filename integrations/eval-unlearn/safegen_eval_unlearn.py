"""safegen as a technique of eval-unlearn (https://pypi.org/project/eval-unlearn).

Installing the package is enough: eval-unlearn finds it by its entry point, under the name
``safegen``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import safegen

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class SafegenConfig:
    """The technique's ``config`` in a run file of eval-unlearn.

    Attributes:
        model_id: base model: a diffusers folder, a hub id or a single file.
        patch: file of the patch; None for a model that is hardened already.
        verify: file of the publisher's public key, if ``model_id`` is a released pipeline.
        device: device (default: the first GPU, else the CPU).
        dtype: precision of the weights.
        num_inference_steps: denoising steps.
        guidance_scale: scale of classifier-free guidance.
    """

    model_id: str
    patch: str | None = None
    verify: str | None = None
    device: str | None = None
    dtype: str = "float32"
    num_inference_steps: int = 50
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")


class SafegenTechnique:
    """Draw with a patched model.

    Args:
        config: fields of ``SafegenConfig``.

    Raises:
        ValueError: a field is unknown, missing or not allowed.
        safegen.SafegenError: the model or the patch cannot be used.
    """

    def __init__(self, **config: Any) -> None:
        import torch

        known = [each.name for each in fields(SafegenConfig)]
        if unknown := sorted(config.keys() - set(known)):
            raise ValueError(f"safegen: unknown {', '.join(unknown)}; known: {', '.join(known)}")
        if "model_id" not in config:
            raise ValueError("safegen: name the model as model_id")
        self.config = SafegenConfig(**config)
        self.pipe = safegen.load_pipeline(
            self.config.model_id,
            verify=self.config.verify,
            device=self.config.device,
            dtype=getattr(torch, self.config.dtype),
        )
        if self.config.patch is not None:
            safegen.apply(self.pipe, self.config.patch)
        if getattr(self.pipe, "safety_checker", None) is not None:  # the edit alone is measured
            self.pipe.safety_checker = None

    def generate(
        self, prompts: Sequence[str], seed: int | None = None, **options: Any
    ) -> list[Any]:
        """Draw a PIL picture for each prompt, with the seeds of eval-unlearn's own techniques.

        Args:
            prompts: the prompts.
            seed: seed of the first picture; each next one's is one more. None draws at random.
            options: further arguments of the pipeline's call.
        """
        import torch

        options = {
            "num_inference_steps": self.config.num_inference_steps,
            "guidance_scale": self.config.guidance_scale,
            **options,
        }
        pictures = []
        for number, prompt in enumerate(prompts):
            generator = None
            if seed is not None:
                generator = torch.Generator(self.pipe.device).manual_seed(seed + number)
            pictures += self.pipe(prompt=prompt, generator=generator, **options).images
        return pictures
