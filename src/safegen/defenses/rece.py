"""RECE (arXiv 2407.12383): UCE, repeated on embeddings that still lead to the concept.

After each edit there are embeddings that the edited keys and values map to where the concept was.
They have a closed form, and are erased in the next round.
"""

from __future__ import annotations

from collections.abc import Sequence
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
)
from safegen.defenses.uce import (
    UceSettings,
    closed_form,
    edited_differences,
    projections,
    token_embeddings,
)
from safegen.patches.patch import Patch
from safegen.profiles import Profile, profile_for
from safegen.settings import setting


@dataclass(frozen=True, kw_only=True)
class ReceSettings(UceSettings, of="RECE"):
    """Settings of UCE's edits, and of the rounds (defaults: the paper's for nudity)."""

    regularisation: float = setting(
        0.1, "lambda of each edit, which holds the weights near their old values.", above=0
    )
    rounds: int = setting(3, "Rounds after the first edit.", minimum=0)
    closeness: float = setting(
        0.1, "lambda of the derived embeddings, which keeps them short.", above=0
    )


def derived(
    c: torch.Tensor, edited: torch.Tensor, gram: torch.Tensor, closeness: float
) -> torch.Tensor:
    """Embeddings c' (N, D), float64, that the edited projections map to where c was.

    The paper's solution (equation 8) is c' = (lambda I + sum W'^T W')^-1 (sum W'^T W) c, with the
    edited projections W'. UCE's edits have W' = W M for one M, so both sums follow from
    G = sum W^T W: they are M^T G M and M^T G.

    Args:
        c: embeddings of the erased texts' tokens (N, D).
        edited: M (D, D).
        gram: G (D, D), over all key and value projections.
        closeness: lambda.
    """
    identity = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    left = edited.T @ gram
    found: torch.Tensor = torch.linalg.solve(
        closeness * identity + left @ edited, left @ c.double().T
    )
    return found.T


@torch.no_grad()
def erase(
    pipeline: Any,
    concept: Concept,
    preserved: Sequence[str] = (),
    settings: ReceSettings | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Patch:
    """Compute all rounds in closed form; the pipeline stays as it was.

    Args:
        pipeline: a Stable Diffusion pipeline.
        concept: concept whose words are erased.
        preserved: texts whose keys and values are preserved.
        settings: scales and rounds (default: the published ones).
        on_progress: gets the edits done and their total.
    """
    chosen = settings or ReceSettings()
    weights = projections(pipeline)
    gram = torch.stack([weight.T @ weight for weight in weights.values()]).sum(dim=0)
    c, guides, kept = token_embeddings(pipeline, concept, preserved, chosen)
    edited = closed_form(c, guides, kept, chosen)
    on_progress(1, 1 + chosen.rounds)
    for number in range(chosen.rounds):
        again = derived(c, edited, gram, chosen.closeness)
        edited = edited @ closed_form(again, guides, kept, chosen)
        on_progress(2 + number, 1 + chosen.rounds)
    recorded = {**asdict(chosen), "words": list(concept.words), "preserved": list(preserved)}
    metadata = patch_metadata(pipeline, "rece", concept.name, recorded)
    return Patch(edited_differences(weights, edited), metadata)


@dataclass(frozen=True, kw_only=True)
class Rece(ReceSettings):
    """Eraser ``rece``."""

    preserved: tuple[str, ...] = setting((), "Preserved texts (default: the model's usual ones).")

    def erase(
        self, pipeline: Any, concept: Concept, on_progress: OnProgress = lambda *_: None
    ) -> Patch:
        """See ``Eraser.erase``."""
        known = profile_for(pipeline) or Profile()
        return erase(pipeline, concept, self.preserved or known.preserved, self, on_progress)


@register("rece")
def rece(patch: str) -> PatchDefense:
    """Patch written by ``safegen erase --method rece``."""
    return load_patch_defense("rece", patch)
