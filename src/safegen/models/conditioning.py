"""Text conditions of denoisers, among them empty and random texts without unsafe content."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of, model_size

POOLED = "text_embeds"
"""Name of SDXL's pooled text features among its added conditions."""

FAMILIES = ("UNet2DConditionModel", "PixArtTransformer2DModel", "SanaTransformer2DModel")
"""Classes of denoisers whose conditions are known."""


@dataclass(frozen=True)
class TextCondition:
    """Conditions of N texts: everything that a denoiser takes beside the latent.

    Attributes:
        hidden: hidden states (N, L, D) of the text encoders.
        mask: valid tokens (N, L), for denoisers with a mask (PixArt, Sana).
        added: entries of ``added_cond_kwargs`` by name, each (N, K): SDXL's pooled features and
            time ids, PixArt-alpha's resolution and aspect ratio.
    """

    hidden: torch.Tensor
    mask: torch.Tensor | None = None
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: torch.Tensor | slice) -> TextCondition:
        """Select some of the texts; a slice gives views."""
        return self._each(lambda value: value[rows])

    @property
    def pooled(self) -> torch.Tensor | None:
        """Pooled features (N, P), for denoisers that take them (SDXL)."""
        return self.added.get(POOLED)

    @property
    def embeddings(self) -> dict[str, torch.Tensor]:
        """Parts that distinguish texts: hidden states and, for SDXL, pooled features."""
        pooled = {} if self.pooled is None else {POOLED: self.pooled}
        return {"hidden": self.hidden, **pooled}

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextCondition:
        """Move to another device, and convert everything except masks to another precision."""
        return self._each(
            lambda value: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        )

    @classmethod
    def cat(cls, parts: Sequence[TextCondition]) -> TextCondition:
        """Concatenate conditions of one family."""
        masks = [part.mask for part in parts if part.mask is not None]
        return cls(
            torch.cat([part.hidden for part in parts]),
            torch.cat(masks) if masks else None,
            {name: torch.cat([part.added[name] for part in parts]) for name in parts[0].added},
        )

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TextCondition:
        return TextCondition(
            change(self.hidden),
            None if self.mask is None else change(self.mask),
            {name: change(value) for name, value in self.added.items()},
        )


@torch.no_grad()
def encode_text(
    pipeline: Any, text: str | list[str], device: torch.device | str | None = None, **options: Any
) -> TextCondition:
    """Encode texts as the pipeline encodes prompts, without the hooks of defenses.

    Args:
        pipeline: a diffusers pipeline with ``encode_prompt``.
        text: one text, or a list of texts.
        device: target device (default: the pipeline's).
        options: options of ``encode_prompt``, such as ``clip_skip``.
    """
    check_takes_text(pipeline)
    encoded = type(pipeline).encode_prompt(
        pipeline,
        prompt=text,
        device=device or pipeline.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **options,
    )
    pooled = encoded[2] if len(encoded) > 2 else None
    return TextCondition(encoded[0], added={} if pooled is None else {POOLED: pooled})


def check_takes_text(pipeline: Any) -> None:
    """Refuse a pipeline that encodes no prompts."""
    if not hasattr(type(pipeline), "encode_prompt"):
        raise SafegenError(
            f"{type(pipeline).__name__} has no encode_prompt, so defenses that work with text "
            "cannot be put on it; use a Stable Diffusion pipeline"
        )


@torch.no_grad()
def encode_prompts(pipeline: Any, prompts: Sequence[str], batch: int = 64) -> TextCondition:
    """Encode prompts as the pipeline's own call does, float32, for pictures of the model's size.

    An empty prompt becomes the unconditional input of classifier-free guidance: zeros for SDXL
    with ``force_zeros_for_empty_prompt``, no preceding instruction for Sana.

    Raises:
        SafegenError: the denoiser is of no known family, or takes unknown conditions.
    """
    _check_family(pipeline)
    if all(prompts) or not _has_its_own_empty(pipeline):
        return _encode_all(pipeline, prompts, batch)
    texts = [prompt for prompt in prompts if prompt]
    known = [_empty(pipeline), *([_encode_all(pipeline, texts, batch)] if texts else [])]
    given = torch.tensor([bool(prompt) for prompt in prompts])
    rows = torch.where(given, given.cumsum(0), 0)  # row 0 is the empty prompt
    return TextCondition.cat(known)[rows.to(known[0].hidden.device)]


def _check_family(pipeline: Any) -> None:
    name = type(denoiser_of(pipeline)).__name__
    if name not in FAMILIES:
        raise SafegenError(
            f"{name}: how it takes texts is not known; known are {', '.join(FAMILIES)}"
        )


def embed_prompts(pipeline: Any, prompts: Sequence[str], batch: int = 64) -> torch.Tensor:
    """Hidden states (N, L, D), float32, of prompts for a denoiser that takes nothing else.

    Raises:
        SafegenError: the pipeline's denoiser needs more of a text than these.
    """
    condition = encode_prompts(pipeline, prompts, batch)
    if condition.mask is not None or condition.added:
        raise SafegenError(
            f"{type(pipeline).__name__}: its denoiser takes more of a text than hidden states "
            "(pooled features, a mask or sizes), which this does not work with; use a Stable "
            "Diffusion 1.x or 2.x model"
        )
    return condition.hidden


@torch.no_grad()
def encode_random_tokens(
    pipeline: Any, count: int, generator: torch.Generator, batch: int = 64
) -> TextCondition:
    """Encode ``count`` sequences of random tokens, float32.

    Lengths are uniform from 1 to the longest that fits, so short and long texts both occur. One
    CLIP encoder gets the tokens themselves; several encoders get the text that they spell, since
    each has its own tokenizer.
    """
    tokens = _random_tokens(pipeline, count, generator)
    if not _has_one_clip(pipeline):
        texts = pipeline.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return encode_prompts(pipeline, texts, batch)
    encoder = pipeline.text_encoder
    parts = [
        encoder(tokens[start : start + batch].to(encoder.device))[0].float()
        for start in range(0, count, batch)
    ]
    return TextCondition(torch.cat(parts))


def _random_tokens(pipeline: Any, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw token sequences (N, L): any start token, random ordinary tokens, end, padding."""
    tokenizer = pipeline.tokenizer
    length = min(tokenizer.model_max_length, _parameter(pipeline, "max_sequence_length") or 2**31)
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if not _has_one_clip(pipeline):  # there SD 2.x's padding is an ordinary token too
        special |= set(tokenizer.all_special_ids)
    ordinary = torch.tensor([i for i in range(len(tokenizer)) if i not in special])
    tokens = torch.full((count, length), tokenizer.pad_token_id)
    if tokenizer.bos_token_id is not None:
        tokens[:, 0] = tokenizer.bos_token_id
    for row in range(count):
        words = int(torch.randint(1, length - 1, (1,), generator=generator))
        chosen = torch.randint(len(ordinary), (words,), generator=generator)
        tokens[row, 1 : words + 1] = ordinary[chosen]
        tokens[row, words + 1] = tokenizer.eos_token_id
    return tokens


def _encode_all(pipeline: Any, prompts: Sequence[str], batch: int) -> TextCondition:
    starts = range(0, len(prompts), batch)
    parts = [_encode(pipeline, list(prompts[start : start + batch])) for start in starts]
    return TextCondition.cat(parts)


def _encode(pipeline: Any, prompts: list[str], instructed: bool = True) -> TextCondition:
    instruction = _parameter(pipeline, "complex_human_instruction") if instructed else None
    encoded = pipeline.encode_prompt(
        prompt=prompts,
        device=_device(pipeline),
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **({"complex_human_instruction": instruction} if instruction else {}),
    )
    hidden = encoded[0].float()
    if not hasattr(pipeline, "unet"):  # a transformer: hidden states, mask and their negatives
        return TextCondition(hidden, encoded[1], _picture_size(pipeline, len(prompts)))
    if len(encoded) == 2:  # Stable Diffusion 1.x and 2.x: hidden states and their negatives
        return TextCondition(hidden)
    pooled = encoded[2].float()
    return TextCondition(hidden, added={POOLED: pooled, "time_ids": _time_ids(pipeline, pooled)})


def _empty(pipeline: Any) -> TextCondition:
    """Unconditional input of guidance, if it is not the encoding of an empty prompt."""
    condition = _encode(pipeline, [""], instructed=False)
    if not _zeroes_the_empty(pipeline):
        return condition
    zeros = {name: torch.zeros_like(value) for name, value in condition.embeddings.items()}
    hidden = zeros.pop("hidden")
    return TextCondition(hidden, condition.mask, {**condition.added, **zeros})


def _has_its_own_empty(pipeline: Any) -> bool:
    return _zeroes_the_empty(pipeline) or bool(_parameter(pipeline, "complex_human_instruction"))


def _zeroes_the_empty(pipeline: Any) -> bool:
    return bool(pipeline.config.get("force_zeros_for_empty_prompt", False))


def _has_one_clip(pipeline: Any) -> bool:
    """Tell whether texts pass one CLIP encoder, as in Stable Diffusion 1.x and 2.x."""
    one = getattr(pipeline, "text_encoder_2", None) is None
    return one and type(pipeline.text_encoder).__name__ == "CLIPTextModel"


def _parameter(pipeline: Any, name: str) -> Any:
    """Default of a parameter of the pipeline's own call; None without one."""
    found = inspect.signature(type(pipeline).__call__).parameters.get(name)
    return None if found is None or found.default is found.empty else found.default


def _device(pipeline: Any) -> torch.device:
    encoder = pipeline.text_encoder
    found: torch.device = (pipeline.text_encoder_2 if encoder is None else encoder).device
    return found


def _time_ids(pipeline: Any, pooled: torch.Tensor) -> torch.Tensor:
    """SDXL's sizes (N, 6): original, crop corner and target, height before width."""
    config: Any = denoiser_of(pipeline).config
    side = float(model_size(pipeline))
    ids = pooled.new_tensor([side, side, 0, 0, side, side])
    width = config.addition_time_embed_dim * len(ids) + pooled.shape[1]
    if width != config.projection_class_embeddings_input_dim:
        raise SafegenError(
            f"{type(pipeline).__name__}: its UNet does not take SDXL's six sizes beside the "
            "text (an SDXL refiner does not); use a base model"
        )
    return ids.expand(len(pooled), -1)


def _picture_size(pipeline: Any, count: int) -> dict[str, torch.Tensor]:
    """Resolution (N, 2) and aspect ratio (N, 1) for the 1024-pixel PixArt-alpha."""
    if not getattr(denoiser_of(pipeline), "use_additional_conditions", False):
        return {}
    device, side = _device(pipeline), float(model_size(pipeline))
    return {
        "resolution": torch.full((count, 2), side, device=device),
        "aspect_ratio": torch.ones(count, 1, device=device),
    }
