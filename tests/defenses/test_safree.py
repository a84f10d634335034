"""SAFREE against its paper's formulas in NumPy, and what the denoiser gets at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses._text import InactiveGuidanceWarning
from safegen.defenses.safree import Safree, filtered_steps, projected, projection, triggers
from safegen.errors import SafegenError
from safegen.models.sampling import ImageRequest, SamplingSettings, generate

KNIVES = Concept("knives", "a knife", ("knife", "the knife"))
STEPS = 4


def span(vectors: np.ndarray) -> np.ndarray:
    """The projection by an orthonormal basis."""
    basis = np.linalg.svd(vectors.T, full_matrices=False)[0][:, : np.linalg.matrix_rank(vectors)]
    found: np.ndarray = basis @ basis.T
    return found


def expected(
    hidden: np.ndarray, without: np.ndarray, concept: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Embeddings with the triggers replaced, all projected, and the triggers: token by token."""
    away = np.eye(hidden.shape[1]) - span(concept)
    distances = [float(np.linalg.norm(away @ each)) for each in without]
    found = [
        each >= (1 + alpha) * np.mean([*distances[:i], *distances[i + 1 :]])
        for i, each in enumerate(distances)
    ]
    moved = np.stack([away @ span(without) @ each for each in hidden])
    safe = hidden.copy()
    for i, is_trigger in enumerate(found):
        if is_trigger:
            safe[1 + i] = moved[1 + i]
    return safe, moved, found


def test_the_formulas_are_the_papers() -> None:
    rng = np.random.default_rng(0)
    hidden, without, concept = (rng.normal(size=size) for size in ((7, 12), (4, 12), (2, 12)))
    _, moved, found = expected(hidden, without, concept, 0.05)
    assert 0 < sum(found) < 4
    onto = projection(torch.from_numpy(concept))
    np.testing.assert_allclose(onto, span(concept), atol=1e-12)
    parts = [torch.from_numpy(each) for each in (hidden, without)]
    assert triggers(parts[1], onto, 0.05).tolist() == found
    np.testing.assert_allclose(projected(parts[0], parts[1], onto), moved, atol=1e-12)
    assert triggers(parts[1][:1], onto, 0.05).tolist() == [True]
    pairs = zip(hidden, moved, strict=True)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    z = 1 - np.mean(cosines)
    steps = 10 / (1 + np.exp(-5 * (10 * z - 5.333)))
    assert filtered_steps(parts[0], torch.from_numpy(moved), 10) == round(steps)
    assert filtered_steps(parts[0], parts[0].double(), 10) == 0


@contextmanager
def seen_by(unet: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []

    def look(_module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        seen.append(kwargs["encoder_hidden_states"].clone())

    handle = unet.register_forward_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def draw(pipeline: Any, guidance: float, prompts: list[str]) -> list[torch.Tensor]:
    """Draw, and return the embeddings that the denoiser got at each step."""
    requests = [ImageRequest(prompt, seed) for seed, prompt in enumerate(prompts)]
    settings = SamplingSettings(steps=STEPS, guidance_scale=guidance, sampler="ddim")
    with seen_by(pipeline.unet) as seen:
        list(generate(pipeline, requests, settings))
    return seen


@torch.no_grad()
def by_hand(pipeline: Any, prompt: str, alpha: float) -> np.ndarray:
    """The safe embeddings of a prompt, from the text encoder itself."""
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder

    def pooled(ids: list[int]) -> np.ndarray:
        found: np.ndarray = encoder(torch.tensor([ids])).pooler_output[0].double().numpy()
        return found

    ids = tokenizer(prompt).input_ids
    without = np.stack([pooled([*ids[:i], 0, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)])
    concept = np.stack([pooled(tokenizer(word).input_ids) for word in KNIVES.words])
    padded = tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    hidden = encoder(padded)[0][0].double().numpy()
    return expected(hidden, without, concept, alpha)[0]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_denoiser_gets_safe_embeddings_while_their_steps_last(
    tiny_pipeline: Any, guidance: float
) -> None:
    prompts = ["a knife", "a cat"]
    plain = draw(tiny_pipeline, guidance, prompts)
    with defended(tiny_pipeline, Safree(KNIVES.words, alpha=0.0, steps=0)):
        guarded = draw(tiny_pipeline, guidance, prompts)
        again = draw(tiny_pipeline, guidance, prompts)
    first = 0 if guidance == 1 else 2
    for row, prompt in enumerate(prompts):
        safe = by_hand(tiny_pipeline, prompt, 0.0)
        np.testing.assert_allclose(guarded[0][first + row], safe, atol=1e-4)
        assert not torch.equal(guarded[0][first + row], plain[0][first + row])
    assert torch.equal(guarded[0][:first], plain[0][:first])  # the unconditional half stays
    for now, then in zip(guarded[1:], plain[1:], strict=True):  # step 0 is the only one
        assert torch.equal(now, then)
    assert all(torch.equal(now, then) for now, then in zip(guarded, again, strict=True))
    assert all(map(torch.equal, draw(tiny_pipeline, guidance, prompts), plain))


def test_embeddings_pass_with_a_warning_and_an_empty_prompt_as_it_is(tiny_pipeline: Any) -> None:
    with defended(tiny_pipeline, create_defense("safree", KNIVES)):
        with pytest.warns(InactiveGuidanceWarning, match="given as embeddings"):
            tiny_pipeline(prompt_embeds=torch.ones(1, 16, 16), num_inference_steps=1)
        guarded = draw(tiny_pipeline, 5.0, [""])
    assert all(map(torch.equal, guarded, draw(tiny_pipeline, 5.0, [""])))


def test_what_does_not_fit_is_refused(build_pipeline: Callable[..., Any]) -> None:
    pipeline = build_pipeline()
    pipeline.text_encoder = torch.nn.Linear(1, 1)
    with pytest.raises(SafegenError, match="one CLIP text encoder"):
        create_defense("safree", KNIVES).apply(pipeline)
    with pytest.raises(SafegenError, match="neither alpha nor the steps"):
        create_defense("safree,alpha=-1", KNIVES)
    with pytest.raises(SafegenError, match="has to be told what to avoid"):
        create_defense("safree")
    settings = create_defense("safree,alpha=0.05", KNIVES).identity.settings
    assert settings == {"words": ["knife", "the knife"], "alpha": 0.05, "steps": 10}
