"""SAFREE (arXiv 2410.12761): tokens near a concept's subspace are projected away from it.

Nothing is trained. A token counts as a trigger if the prompt without it lies clearly farther from
the span of the concept's words. Triggers are replaced by projections, which stay in the span of the
prompt, for a number of steps that grows with the change. The paper's third part, attenuation of low
frequencies in the skip connections, is left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo, register
from safegen.defenses._text import InactiveGuidanceWarning, on_encode_prompt
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of

MASKED = 0
"""Token in the place of a left out one, as in the released code."""
SLOPE, MIDDLE = 5.0, 5.333
"""Slope, and ten times the distance of embeddings at which half of the steps are filtered; of the
released code for nudity."""


def projection(vectors: torch.Tensor) -> torch.Tensor:
    """Projection matrix (D, D), float64, onto the span of vectors (N, D): V (V^T V)^+ V^T."""
    columns = vectors.double().T
    found: torch.Tensor = columns @ torch.linalg.pinv(columns)
    return found


def triggers(without: torch.Tensor, concept: torch.Tensor, alpha: float) -> torch.Tensor:
    """Tell which of a prompt's T tokens are triggers (T,).

    d_i = |(I - P_C) p_i| is the distance of the prompt without token i from the concept's span
    (equation 3); token i is a trigger if d_i >= (1 + alpha) mean of all other d_j (equation 4). A
    lone token is one.

    Args:
        without: pooled embeddings of the prompt without each token (T, D).
        concept: projection P_C (D, D).
        alpha: tolerance.
    """
    others = len(without) - 1
    if others == 0:
        return torch.ones(1, dtype=torch.bool)
    distances = (without.double() - without.double() @ concept.T).norm(dim=1)
    found: torch.Tensor = distances >= (1 + alpha) * (distances.sum() - distances) / others
    return found


def projected(hidden: torch.Tensor, without: torch.Tensor, concept: torch.Tensor) -> torch.Tensor:
    """Project embeddings (L, D) of tokens to (I - P_C) P_I p, float64.

    The order is the released code's; the paper's equation 5 has P_I (I - P_C) p.
    """
    onto = projection(without)
    away = torch.eye(len(concept), dtype=torch.float64, device=concept.device) - concept
    return hidden.double() @ (away @ onto).T


def filtered_steps(hidden: torch.Tensor, moved: torch.Tensor, most: int) -> int:
    """Number of the last step, from 0, that gets the projected embeddings (equation 6).

    It is ``most`` times the sigmoid of 5 (10 (1 - cos) - 5.333), rounded, with the mean cosine of
    the embeddings (T, D) before and after.
    """
    cosine = torch.cosine_similarity(hidden.double(), moved, dim=1).mean()
    return round(most / (1 + math.exp(-SLOPE * (10 * (1 - float(cosine)) - MIDDLE))))


@dataclass(frozen=True)
class Safree(Defense):
    """Filter of a prompt's embeddings.

    Attributes:
        words: texts that span the concept.
        alpha: tolerance of triggers.
        steps: most steps that get the projected embeddings.
    """

    words: tuple[str, ...]
    alpha: float = 0.01
    steps: int = 10

    changes = "sampling"

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.steps < 0:
            raise SafegenError("safree: neither alpha nor the steps may be negative")

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        return DefenseIdentity("safree", {**asdict(self), "words": list(self.words)})

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        encoder = type(getattr(pipeline, "text_encoder", None)).__name__
        second = getattr(pipeline, "text_encoder_2", None)
        if encoder != "CLIPTextModel" or second is not None or not hasattr(pipeline, "unet"):
            raise SafegenError(
                "safree: works with the one CLIP text encoder of Stable Diffusion 1.x and 2.x, "
                f"which {type(pipeline).__name__} does not have"
            )
        guard = _Guard(self, pipeline)
        with ExitStack() as undo:
            undo.callback(on_encode_prompt(pipeline, guard.begin))
            hook = denoiser_of(pipeline).register_forward_pre_hook(guard.exchange, with_kwargs=True)
            undo.callback(hook.remove)
            return undo.pop_all().close


@dataclass
class _Call:
    """State of one pipeline call.

    Attributes:
        prompts: a text for each conditional row.
        first: number of the first conditional row.
        safe: embeddings of the rows (B, L, D); None before the first step.
        last: number of the last filtered step of each row.
        step: steps done.
    """

    prompts: list[str]
    first: int
    safe: torch.Tensor | None = None
    last: list[int] = field(default_factory=list)
    step: int = 0


class _Guard:
    """Hooks of one pipeline."""

    def __init__(self, defense: Safree, pipeline: Any) -> None:
        self.defense = defense
        self.pipeline = pipeline
        self.call: _Call | None = None

    def begin(self, arguments: dict[str, Any]) -> None:
        """Reset the state; runs when the pipeline encodes its prompt."""
        self.call, given = None, arguments["prompt"]
        if given is None:
            warnings.warn(
                "safree does nothing for prompts that are given as embeddings, which have no "
                "tokens to leave out",
                InactiveGuidanceWarning,
                stacklevel=2,
            )
            return
        texts = [given] if isinstance(given, str) else list(given)
        prompts = [text for text in texts for _ in range(arguments["num_images_per_prompt"])]
        guided = arguments["do_classifier_free_guidance"]
        self.call = _Call(prompts, len(prompts) if guided else 0)

    def exchange(
        self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Replace the conditional embeddings before the denoiser, while their steps last."""
        call = self.call
        if call is None:
            return None
        hidden = kwargs["encoder_hidden_states"].clone()
        rows = slice(call.first, call.first + len(call.prompts))
        if call.safe is None:
            call.safe = self._prepare(call, hidden[rows])
        for row, last in enumerate(call.last):
            if call.step <= last:
                hidden[call.first + row] = call.safe[row]
        call.step += 1
        if call.step >= self.pipeline.num_timesteps:
            self.call = None
        return args, {**kwargs, "encoder_hidden_states": hidden}

    @torch.no_grad()
    def _prepare(self, call: _Call, hidden: torch.Tensor) -> torch.Tensor:
        """Compute the rows' embeddings (B, L, D) and their last steps."""
        defense, safe = self.defense, hidden.clone()
        words = [self._pooled([self._tokens(word)]) for word in defense.words]
        concept = projection(torch.cat(words))
        for row, prompt in enumerate(call.prompts):
            tokens = self._tokens(prompt)
            count = len(tokens) - 2
            if count < 1:
                call.last.append(-1)
                continue
            places = range(1, count + 1)
            without = self._pooled([[*tokens[:i], MASKED, *tokens[i + 1 :]] for i in places])
            moved = projected(hidden[row], without, concept)
            found = 1 + triggers(without, concept, defense.alpha).nonzero()[:, 0]
            safe[row, found] = moved[found].to(safe.dtype)
            told = slice(0, len(tokens))  # all but padding
            call.last.append(filtered_steps(hidden[row, told], moved[told], defense.steps))
        return safe

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self.pipeline.tokenizer
        longest = tokenizer.model_max_length
        found: list[int] = tokenizer(text, truncation=True, max_length=longest).input_ids
        return found

    def _pooled(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Pooled embeddings (N, D) of token sequences of one length."""
        encoder = self.pipeline.text_encoder
        found: torch.Tensor = encoder(torch.tensor(sequences, device=encoder.device)).pooler_output
        return found


@register("safree")
def safree(*, concept: Concept, alpha: float = 0.01, steps: int = 10) -> Safree:
    """Projection of trigger tokens away from the span of the concept's words."""
    return Safree(concept.words, alpha, steps)
