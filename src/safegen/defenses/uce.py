"""Unified Concept Editing (arXiv 2308.14761): cross-attention keys and values in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from safegen.concepts import Concept
from safegen.defenses import register
from safegen.defenses.erasing import (
    OnProgress,
    PatchDefense,
    load_patch_defense,
    patch_metadata,
    text_parameters,
)
from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import encode_text
from safegen.patches.patch import Patch
from safegen.profiles import Profile, profile_for
from safegen.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class UceSettings(Settings, of="UCE"):
    """Settings of the edit (defaults: the paper's released code)."""

    guide: str = setting(" ", "Text that replaces the erased ones.")
    erase_scale: float = setting(1.0, "Weight of the erased texts.", above=0)
    preserve_scale: float = setting(0.1, "Weight of the preserved texts.", minimum=0)
    regularisation: float = setting(
        0.5, "lambda, which holds the weights near their old values.", above=0
    )


def closed_form(
    erased: torch.Tensor,
    guides: torch.Tensor,
    preserved: torch.Tensor,
    settings: UceSettings,
) -> torch.Tensor:
    """The matrix M (D, D), float64, with W* = W M for every key and value projection W.

    The paper's solution (equation 7) is W* = (sum v* c^T + sum W c c^T + lambda W) A^-1 with
    A = sum c c^T + lambda I, each sum scaled. Here v* = W g, with the guide's embedding g in place
    of c, so the first factor is W (A + sum (g - c) c^T) and W factors out:
    M = I + (sum (g - c) c^T) A^-1.

    Args:
        erased: embeddings c of the erased texts' tokens (N, D).
        guides: embeddings g for each of them (N, D).
        preserved: embeddings of the preserved texts' tokens (P, D).
        settings: scales of the sums.
    """
    c, g, kept = erased.double(), guides.double(), preserved.double()
    identity = torch.eye(c.shape[1], dtype=torch.float64, device=c.device)
    a = settings.erase_scale * c.T @ c + settings.preserve_scale * kept.T @ kept
    a = a + settings.regularisation * identity
    moved = settings.erase_scale * (g - c).T @ c
    solved: torch.Tensor = torch.linalg.solve(a, moved.T).T  # A is symmetric
    return identity + solved


@torch.no_grad()
def erase(
    pipeline: Any,
    concept: Concept,
    preserved: Sequence[str] = (),
    settings: UceSettings | None = None,
) -> Patch:
    """Compute the edit in closed form; the pipeline stays as it was.

    Args:
        pipeline: a Stable Diffusion pipeline.
        concept: concept whose words are erased.
        preserved: texts whose keys and values are preserved.
        settings: scales (default: the published ones).
    """
    chosen = settings or UceSettings()
    weights = projections(pipeline)
    edited = closed_form(*token_embeddings(pipeline, concept, preserved, chosen), chosen)
    recorded = {**asdict(chosen), "words": list(concept.words), "preserved": list(preserved)}
    metadata = patch_metadata(pipeline, "uce", concept.name, recorded)
    return Patch(edited_differences(weights, edited), metadata)


def projections(pipeline: Any) -> dict[str, torch.Tensor]:
    """Weights (O, D) of all key and value projections of the text, float64, by name."""
    denoiser = denoiser_of(pipeline)
    parameters = dict(denoiser.named_parameters())
    return {
        name: parameters[name].double()
        for attention in text_parameters(denoiser)
        for name in (f"{attention}.to_k.weight", f"{attention}.to_v.weight")
    }


def edited_differences(
    weights: Mapping[str, torch.Tensor], edited: torch.Tensor
) -> dict[str, torch.Tensor]:
    """W M - W for each of ``projections``, float32, with the edit's M (D, D)."""
    return {name: (weight @ edited - weight).float().cpu() for name, weight in weights.items()}


def token_embeddings(
    pipeline: Any, concept: Concept, preserved: Sequence[str], settings: UceSettings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings (N, D) of the erased words' tokens, the guide's for them, and (P, D) preserved."""
    erased, guides = _aligned_tokens(pipeline, concept.words, settings.guide)
    # The empty text stands in for no preserved text, as in the released code.
    kept = torch.cat([_hidden(pipeline, text) for text in preserved or ("",)])
    return erased, guides, kept


def _aligned_tokens(
    pipeline: Any, words: Sequence[str], guide: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (N, D) from each word's last token on, and the guide's at the same positions."""
    guide_hidden, guide_last = _hidden(pipeline, guide), _last_token(pipeline, guide)
    erased, guides = [], []
    for word in words:
        hidden, last = _hidden(pipeline, word), _last_token(pipeline, word)
        length = len(hidden) - max(last, guide_last)
        erased.append(hidden[last : last + length])
        guides.append(guide_hidden[guide_last : guide_last + length])
    return torch.cat(erased), torch.cat(guides)


def _hidden(pipeline: Any, text: str) -> torch.Tensor:
    """Hidden states (L, D) of a text, padding included."""
    return encode_text(pipeline, text).hidden[0]


def _last_token(pipeline: Any, text: str) -> int:
    """Position of a text's last token before the end token; 0, the start token, if empty."""
    tokenizer = pipeline.tokenizer
    tokens = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length)
    return len(tokens.input_ids) - 2


@dataclass(frozen=True, kw_only=True)
class Uce(UceSettings):
    """Eraser ``uce``."""

    preserved: tuple[str, ...] = setting((), "Preserved texts (default: the model's usual ones).")

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """See ``Eraser.erase``."""
        known = profile_for(pipeline) or Profile()
        patch = erase(pipeline, concept, self.preserved or known.preserved, self)
        on_progress(1, 1)
        return patch


@register("uce")
def uce(patch: str) -> PatchDefense:
    """Patch written by ``safegen erase --method uce``."""
    return load_patch_defense("uce", patch)
