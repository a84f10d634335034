"""Families of pipelines: how each takes texts and latents. One file is one family.

A family of another package is an entry point of the group ``safegen.families``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, latent_scale, model_size
from safegen.models.options import SamplingSettings
from safegen.models.texts import TextCondition
from safegen.registry import Registry


class Family:
    """Pipelines that take texts and latents alike; a subclass says how.

    Attributes:
        pipelines: class names of pipelines.
        denoisers: class names of denoisers, for pipelines of other classes.
    """

    pipelines: tuple[str, ...] = ()
    denoisers: tuple[str, ...] = ()

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        """Encode prompts as the pipeline's own call does, float32, each as a row."""
        raise NotImplementedError

    def empty(self, pipeline: Any) -> TextCondition | None:
        """Unconditional input of guidance; None if it is the encoding of an empty prompt."""
        del pipeline
        return None

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        """Keyword arguments of the denoiser's call.

        Args:
            config: configuration of the denoiser.
            z_t: noised latents (B, C, H, W) in the autoencoder's layout.
            timesteps: timesteps of the scheduler (B,).
            texts: conditions (B).
        """
        raise NotImplementedError

    def text_inputs(self, texts: TextCondition) -> dict[str, Any]:
        """Keyword arguments of the denoiser's call that hold the texts' embeddings.

        Only for pipelines that stack the unconditional half of guidance before the other.

        Raises:
            SafegenError: the family's pipelines do not.
        """
        del texts
        raise SafegenError(
            f"{', '.join(self.pipelines)}: how guidance hands its unconditional half to the "
            "denoiser is not known; use Stable Diffusion 1.x, 2.x, XL or 3"
        )

    def unpacked(self, output: Any, z_t: torch.Tensor) -> torch.Tensor:
        """Turn the denoiser's output into the layout of z_t (B, C or more, H, W)."""
        del z_t
        unchanged: torch.Tensor = output
        return unchanged

    def packed(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn latents (B, C, H, W) into the layout that the pipeline's call takes."""
        return latents

    @contextmanager
    def drawing(self, pipeline: Any, settings: SamplingSettings) -> Iterator[None]:
        """Make a pipeline follow those settings in the block that its call does not take."""
        del pipeline, settings
        yield

    def pictures(self, output: Any) -> np.ndarray:
        """Pictures (B, H, W, 3) of the pipeline's output, in [0, 1]."""
        found: np.ndarray = output.images
        return found

    def latent_shape(self, pipeline: Any) -> tuple[int, int, int]:
        """Shape (C, H, W) of a picture's latent at the model's size."""
        config: Any = denoiser_of(pipeline).config
        side = model_size(pipeline) // latent_scale(pipeline)
        return config.in_channels, side, side

    def idle(self, pipeline: Any) -> list[str]:
        """Names of the parts that encode latents and texts, and may then leave memory."""
        parts = (name for name, part in pipeline.components.items() if isinstance(part, nn.Module))
        return [name for name in parts if name == "vae" or name.startswith("text_encoder")]

    def call_conditions(self, texts: TextCondition) -> dict[str, torch.Tensor]:
        """Arguments of the pipeline's call that stand for its prompts."""
        named = {
            "prompt_embeds": texts.hidden,
            "pooled_prompt_embeds": texts.pooled,
            "prompt_attention_mask": texts.mask,
        }
        return {name: value for name, value in named.items() if value is not None}

    def call_options(self, pipeline: Any, settings: SamplingSettings, count: int) -> dict[str, Any]:
        """Options of the pipeline's call for ``count`` pictures that depend on the family."""
        accepted = inspect.signature(type(pipeline).__call__).parameters
        # Otherwise a picture would depend on more than the request: the one option changes its
        # size, the other its prompt, if some packages are installed.
        unasked = ("use_resolution_binning", "clean_caption")
        negative = [settings.negative_prompt] * count
        return {
            "guidance_scale": settings.guidance_scale,
            "negative_prompt": negative,
            **{name: False for name in unasked if name in accepted},
        }


families: Registry[type[Family]] = Registry("families", "safegen.models.families")


def family_of(pipeline: Any) -> Family:
    """Find a pipeline's family by its class, or else by its denoiser's.

    Raises:
        SafegenError: the family is not known.
    """
    family = _known(pipeline)
    if family is None:
        raise _unknown(pipeline)
    return family


def family_with(denoiser: nn.Module) -> Family:
    """Find a denoiser's family by its class.

    Raises:
        SafegenError: the family is not known.
    """
    family = _find("denoisers", _classes(denoiser))
    if family is None:
        raise _unknown(denoiser)
    return family


def family_if_known(pipeline: Any) -> Family:
    """Find a pipeline's family; one without any peculiarities if it is not known."""
    return _known(pipeline) or Family()


def _known(pipeline: Any) -> Family | None:
    return _find("pipelines", _classes(pipeline)) or _find(
        "denoisers", _classes(denoiser_of(pipeline))
    )


def _classes(owner: Any) -> tuple[str, ...]:
    return tuple(each.__name__ for each in type(owner).__mro__)


@cache  # looking for entry points takes longer than a step of a small model
def _find(attribute: str, classes: tuple[str, ...]) -> Family | None:
    known = [families.get(name)() for name in families.names()]
    return next(
        (each for name in classes for each in known if name in getattr(each, attribute)), None
    )


def _unknown(owner: Any) -> SafegenError:
    known = sorted({name for each in families.names() for name in families.get(each).pipelines})
    return SafegenError(
        f"{type(owner).__name__}: how it takes texts and latents is not known; known are "
        f"{', '.join(known)}, and another is one file in safegen.models.families or an entry "
        "point of safegen.families"
    )


def text_device(pipeline: Any) -> torch.device:
    """Device of the first text encoder."""
    encoder = pipeline.text_encoder
    found: torch.device = (pipeline.text_encoder_2 if encoder is None else encoder).device
    return found


def encoded(pipeline: Any, prompts: list[str], **options: Any) -> Any:
    """Call the class's ``encode_prompt``, without hooks of defenses, for one condition a prompt."""
    return type(pipeline).encode_prompt(
        pipeline, prompt=prompts, device=text_device(pipeline), num_images_per_prompt=1, **options
    )


def sizes(pipeline: Any, count: int, values: Mapping[str, list[float]]) -> dict[str, torch.Tensor]:
    """Rows (N, K) of sizes by name, on the text encoders' device."""
    device = text_device(pipeline)
    return {
        name: torch.tensor(row, device=device).expand(count, -1) for name, row in values.items()
    }


def padded(hidden: Sequence[torch.Tensor], length: int) -> TextCondition:
    """Pad texts' hidden states, each (L, D), with zeros to one length; a mask tells them apart."""
    lengths = torch.tensor([len(each) for each in hidden], device=hidden[0].device)
    rows = [nn.functional.pad(each.float(), (0, 0, 0, length - len(each))) for each in hidden]
    return TextCondition(
        torch.stack(rows), torch.arange(length, device=lengths.device) < lengths[:, None]
    )
