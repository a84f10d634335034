"""Safe Latent Diffusion (arXiv 2211.05105): guidance away from a safety concept.

Works inside the pipeline's own call: the batch [unconditional, conditional] is widened by the
safety concept, and the conditional output is moved by gamma, so that the pipeline's formula
u + g (c - u) gives the paper's u + g (c - u - gamma) (equation 3). Outputs are taken as they are,
noises or velocities.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo
from safegen.defenses._steering import check_steerable, with_sample
from safegen.defenses._text import InactiveGuidanceWarning, on_encode_prompt
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import TextCondition, encode_text
from safegen.models.families import family_of

TRANSFORMERS = ("SD3Transformer2DModel",)
"""Denoisers beside UNets that take a text as hidden states and pooled features, in one batch."""


@dataclass(frozen=True)
class SldSettings:
    """Settings of safety guidance, in the paper's symbols.

    Attributes:
        warmup_steps: delta, steps before guidance acts; momentum accumulates meanwhile.
        guidance_scale: s_S.
        threshold: lambda.
        momentum_scale: s_m.
        momentum_decay: beta_m.
    """

    warmup_steps: int
    guidance_scale: float
    threshold: float
    momentum_scale: float
    momentum_decay: float

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise SafegenError(f"SLD: warm-up steps cannot be negative, not {self.warmup_steps}")
        if self.guidance_scale <= 0:
            raise SafegenError(f"SLD: the guidance must be positive, not {self.guidance_scale:g}")
        if not (0 <= self.momentum_scale <= 1 and 0 <= self.momentum_decay < 1):
            raise SafegenError("SLD: momentum must have a scale in [0, 1] and a decay in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class SldChanges:
    """Options of a spec that change a configuration; None keeps its value.

    Attributes:
        words: parts of the safety concept's text (default: the concept's text).
        warmup_steps, guidance_scale, threshold, momentum_scale, momentum_decay: as in
            ``SldSettings``.
    """

    words: tuple[str, ...] = ()
    warmup_steps: int | None = None
    guidance_scale: float | None = None
    threshold: float | None = None
    momentum_scale: float | None = None
    momentum_decay: float | None = None


# Values of the paper's table. diffusers' SafetyConfig differs in one: 20 for the weak guidance.
WEAK = SldSettings(15, 200.0, 0.0, 0.0, 0.0)
MEDIUM = SldSettings(10, 1000.0, 0.01, 0.3, 0.4)
STRONG = SldSettings(7, 2000.0, 0.025, 0.5, 0.7)
MAX = SldSettings(0, 5000.0, 1.0, 0.5, 0.7)


def safety_guidance(
    unconditional: torch.Tensor,
    conditional: torch.Tensor,
    concept: torch.Tensor,
    momentum: torch.Tensor,
    settings: SldSettings,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(gamma, next momentum) at one step; all tensors (B, C, H, W).

    mu = min(1, s_S |c - s|) where c - s < lambda, else 0 (equation 6, with the clamp at 1 that
    the paper's text and code have); gamma = mu (s - u) + s_m nu (equations 4 and 7);
    nu' = beta_m nu + (1 - beta_m) gamma (equation 8).
    """
    difference = conditional - concept
    scale = (difference.abs() * settings.guidance_scale).clamp(max=1.0)
    scale = torch.where(difference >= settings.threshold, torch.zeros_like(scale), scale)
    gamma = (concept - unconditional) * scale + settings.momentum_scale * momentum
    decay = settings.momentum_decay
    return gamma, decay * momentum + (1 - decay) * gamma


@dataclass(frozen=True)
class SafeLatentDiffusion(Defense):
    """Safety guidance in one configuration.

    Attributes:
        name: name such as ``sld-max``.
        text: text of the safety concept.
        settings: guidance settings.
    """

    name: str
    text: str
    settings: SldSettings

    changes = "sampling"

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        return DefenseIdentity(self.name, {"text": self.text, **asdict(self.settings)})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``; refuses a pipeline that SLD already guides."""
        denoiser = denoiser_of(pipeline)
        check_steerable(pipeline, self.name, TRANSFORMERS)
        hooks = denoiser._forward_pre_hooks.values()
        if any(isinstance(getattr(hook, "__self__", None), _Guide) for hook in hooks):
            raise SafegenError(f"{self.name}: the pipeline has SLD already; use one of its kinds")
        guide = _Guide(self, pipeline)
        with ExitStack() as undo:
            undo.callback(on_encode_prompt(pipeline, guide.begin))
            # First of all hooks: others may change what a text looks like.
            widening = denoiser.register_forward_pre_hook(
                guide.widen, prepend=True, with_kwargs=True
            )
            undo.callback(widening.remove)
            undo.callback(denoiser.register_forward_hook(guide.steer).remove)
            return undo.pop_all().close


def create(
    name: str, concept: Concept, settings: SldSettings, changes: SldChanges
) -> SafeLatentDiffusion:
    """Create a named defense, by default with the concept's text as safety concept."""
    changed = {key: value for key, value in asdict(changes).items() if value is not None}
    text = ", ".join(changed.pop("words")) or concept.text
    return SafeLatentDiffusion(name, text, replace(settings, **changed))


@dataclass
class _Call:
    """State of one pipeline call."""

    concept: TextCondition
    step: int = 0
    momentum: torch.Tensor | None = None


class _Guide:
    """Hooks of one pipeline."""

    def __init__(self, defense: SafeLatentDiffusion, pipeline: Any) -> None:
        self.defense = defense
        self.pipeline = pipeline
        self.call: _Call | None = None

    def begin(self, arguments: dict[str, Any]) -> None:
        """Reset the state; runs when the pipeline encodes its prompt."""
        self.call = None
        if arguments["do_classifier_free_guidance"]:
            options = {"clip_skip": arguments.get("clip_skip")}
            concept = encode_text(self.pipeline, self.defense.text, arguments["device"], **options)
            self.call = _Call(concept)

    def widen(
        self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Widen 2B rows to 3B before the denoiser, the last B with the safety concept."""
        if self.call is None:
            warnings.warn(
                f"{self.defense.name} does nothing where the denoiser runs without "
                "classifier-free guidance; use a guidance scale above 1",
                InactiveGuidanceWarning,
                stacklevel=2,
            )
            return None
        rows = len(kwargs["encoder_hidden_states"])
        wide = {name: _with_third(value, rows) for name, value in kwargs.items()}
        _set_third(wide, family_of(self.pipeline).text_inputs(self.call.concept), rows)
        return tuple(_with_third(value, rows) for value in args), wide

    def steer(self, _module: Any, _args: tuple[Any, ...], output: Any) -> Any:
        """Move the conditional rows by gamma after the denoiser, and drop the last B."""
        call, settings = self.call, self.defense.settings
        if call is None:
            return output
        unconditional, conditional, concept = output[0].chunk(3)
        if call.momentum is None:
            call.momentum = torch.zeros_like(concept)
        gamma, call.momentum = safety_guidance(
            unconditional, conditional, concept, call.momentum, settings
        )
        if call.step >= settings.warmup_steps:
            conditional = conditional - gamma
        call.step += 1
        if call.step >= self.pipeline.num_timesteps:
            self.call = None
        return with_sample(output, torch.cat([unconditional, conditional]))


def _with_third(value: Any, rows: int) -> Any:
    """Append the conditional half of a tensor of ``rows`` = 2B rows; others stay as they are."""
    if isinstance(value, dict):
        return {name: _with_third(each, rows) for name, each in value.items()}
    if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == rows:
        return torch.cat([value, value[rows // 2 :]])
    return value


def _set_third(wide: Any, value: Any, rows: int) -> None:
    """Write tensors of B rows into the last B of those of the same names."""
    if isinstance(value, dict):
        for name, each in value.items():
            _set_third(wide[name], each, rows)
        return
    if wide.shape[1:] != value.shape[1:]:
        raise SafegenError(
            f"SLD: prompts are encoded as {tuple(wide.shape[1:])}, the safety concept as "
            f"{tuple(value.shape[1:])}; pass prompts as text, or embeddings of that shape"
        )
    wide[rows:] = value.to(wide.dtype)
