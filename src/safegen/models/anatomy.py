"""Vision-only attention in a denoiser's weights, found by tracing what each layer multiplies."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from safegen.errors import SafegenError
from safegen.models.options import Scope
from safegen.models.tracing import Seen, Trace, trace

REASONS: Mapping[tuple[Seen, Seen], str] = {
    ("image", "image"): "attention over image tokens alone",
    ("both", "image"): "image side of joint attention",
    ("text", "image"): "queries and output of cross-attention",
    ("text", "text"): "text tokens alone",
    ("both", "text"): "text side of joint attention",
    ("both", "both"): "shared by text and image tokens",
    ("text", "both"): "shared by text and image tokens",
}
"""Reason to train a layer or not, by its attention's keys and its own tokens."""
TRAINED = (("image", "image"), ("both", "image"))
"""Keys and tokens of vision-only layers: those that multiply image tokens alone, in an attention
whose keys have image tokens among them."""


@dataclass(frozen=True)
class Layer:
    """One layer with weights inside an attention.

    Attributes:
        attention: name of the attention in the denoiser.
        name: name of the layer in the attention.
        parameters: names of its parameters.
        trained: whether it is vision-only.
        reason: reason for that, in a few words.
    """

    attention: str
    name: str
    parameters: tuple[str, ...]
    trained: bool
    reason: str

    @property
    def pattern(self) -> str:
        """Name of the attention with ``*`` for the numbers of blocks."""
        return re.sub(r"\.\d+(?=\.|$)", ".*", self.attention)


def denoiser_of(pipeline: Any) -> nn.Module:
    """Return the network that predicts noise: ``unet`` or ``transformer``."""
    for name in ("unet", "transformer"):
        part = getattr(pipeline, name, None)
        if part is not None:
            return part  # type: ignore[no-any-return]
    raise SafegenError(f"{type(pipeline).__name__} has no UNet or transformer to edit")


def latent_scale(pipeline: Any) -> int:
    """Pixels per latent along a side."""
    names = ("vae_scale_factor", "vae_scale_factor_spatial")
    return next(int(getattr(pipeline, name)) for name in names if hasattr(pipeline, name))


def model_size(pipeline: Any) -> int:
    """Side of the model's pictures in pixels.

    Where neither the denoiser nor the pipeline has one, it is the height that the pipeline's call
    draws if none is asked for; None stands for 1024 there (Z-Image).
    """
    config: Any = denoiser_of(pipeline).config
    side = config.get("sample_size") or getattr(pipeline, "default_sample_size", None)
    if side:
        return int(side * latent_scale(pipeline))
    return int(parameter(pipeline, "height") or 1024)


def parameter(pipeline: Any, name: str) -> Any:
    """Default of a parameter of the pipeline's own call; None without one."""
    found = inspect.signature(type(pipeline).__call__).parameters.get(name)
    return None if found is None or found.default is found.empty else found.default


def attention_layers(denoiser: nn.Module) -> list[Layer]:
    """All layers inside attentions, in the order of the first call.

    Raises:
        SafegenError: see ``safegen.models.tracing.trace``.
    """
    seen = trace(denoiser)
    parameters: dict[str, list[str]] = {}
    for name, _ in denoiser.named_parameters():
        parameters.setdefault(name.rpartition(".")[0], []).append(name)
    found = []
    for name, tokens in seen.layers.items():
        attention = _attention_of(name, seen)
        if attention is not None and name in parameters:
            kinds = (seen.keys[attention], tokens)
            reason = REASONS.get(kinds, "neither text nor image tokens")
            own, inside = tuple(parameters[name]), name.removeprefix(f"{attention}.")
            found.append(Layer(attention, inside, own, kinds in TRAINED, reason))
    return found


def _attention_of(name: str, seen: Trace) -> str | None:
    """Name of the innermost attention around a layer."""
    around = [each for each in seen.keys if name.startswith(f"{each}.")]
    return max(around, key=len, default=None)


def self_attention_names(denoiser: nn.Module) -> list[str]:
    """Names of all vision-only attention parameters, sorted.

    Raises:
        SafegenError: there are none, or the class is unknown.
    """
    layers = attention_layers(denoiser)
    names = sorted(name for layer in layers if layer.trained for name in layer.parameters)
    if not names:
        reasons = ", ".join(sorted({layer.reason for layer in layers})) or "no attention at all"
        raise SafegenError(
            f"{type(denoiser).__name__}: no weight of its attention multiplies image tokens alone "
            f"({reasons}), so an edit could not stay blind to text; use another model, such as "
            "Stable Diffusion, FLUX or Qwen-Image"
        )
    return names


def scope_names(denoiser: nn.Module, scope: Scope) -> list[str]:
    """Names of the parameters that an edit of a scope trains, sorted.

    The output part is the last block and the layers after it, which turn features into the
    prediction, without what multiplies text and without cross-attention.

    Raises:
        SafegenError: see ``self_attention_names``.
    """
    names = set(self_attention_names(denoiser))
    if scope == "self-attention+output":
        names |= set(_output_names(denoiser, trace(denoiser)))
    return sorted(names)


def _output_names(denoiser: nn.Module, seen: Trace) -> Iterator[str]:
    blocks = {name for name, part in denoiser.named_children() if isinstance(part, nn.ModuleList)}
    last = max(i for i, name in enumerate(seen.order) if _is_block(name, blocks))
    after = tuple(f"{name}." for name in seen.order[last:] if name and name.count(".") == 0)
    layers = attention_layers(denoiser)
    blind = {name for layer in layers if not layer.trained for name in layer.parameters}
    for name, _ in denoiser.named_parameters():
        if name in blind or seen.layers.get(name.rpartition(".")[0]) in ("text", "both"):
            continue
        if name.startswith((f"{seen.order[last]}.", *after)) or name == "scale_shift_table":
            yield name


def _is_block(name: str, blocks: set[str]) -> bool:
    parent, _, number = name.rpartition(".")
    return parent in blocks and number.isdigit()


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights in half precision, equal for a model's precision variants."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_digest(value.detach().to(torch.float16)))
    return digest.hexdigest()


def tensor_digest(value: torch.Tensor) -> bytes:
    """SHA-256 of a tensor's bytes."""
    data = value.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).digest()
