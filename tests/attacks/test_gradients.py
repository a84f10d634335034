"""Prompts with open places: what is encoded, what is drawn, and what gradients say."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_targets
from safegen.attacks import Task
from safegen.attacks._gradients import (
    GAMMA,
    Vocabulary,
    denoising_loss,
    draw_sequences,
    frozen,
    open_prompts,
)
from safegen.attacks.concept_inversion import inverted_prompts
from safegen.attacks.p4d import interleaved
from safegen.attacks.unlearndiffatk import on_simplex
from safegen.defenses import defended
from safegen.models.conditioning import TextCondition, embed_prompts

TEXTS = ["a knife in snow", "a cat"]
TASKS = [Task(f"p{i}", text, i, (3.0, 5.0)[i]) for i, text in enumerate(TEXTS)]
target_of = partial(tiny_targets.target_of, steps=3)


def test_tokens_of_ones_own_in_open_places_are_the_text_itself(tiny_pipeline: Any) -> None:
    vocabulary = Vocabulary(tiny_pipeline)
    tokens = vocabulary.tokens(TEXTS[0])
    assert len(tokens) > 4
    prompts = open_prompts(tiny_pipeline, [[~0, ~1, *tokens[2:]], [*tokens[:-2], ~1, ~0]])
    weight = tiny_pipeline.text_encoder.get_input_embeddings().weight.detach()
    chosen = torch.tensor([tokens[:2], [tokens[-1], tokens[-2]]])
    expected = embed_prompts(tiny_pipeline, TEXTS[:1])
    for hidden in prompts.condition(weight[chosen]).hidden.detach():
        assert torch.equal(hidden, expected[0])
    for sequence in prompts.filled(chosen):
        assert vocabulary.text(sequence) == TEXTS[0]
    other = prompts.condition(weight[chosen.flip(1)]).hidden.detach()
    assert not torch.allclose(other[0], expected[0])


def test_what_does_not_fit_falls_away(tiny_pipeline: Any) -> None:
    vocabulary = Vocabulary(tiny_pipeline)
    text = "the house and the snow and the cat"
    prompts = open_prompts(tiny_pipeline, [vocabulary.tokens(text)])
    assert prompts.sequences.shape == (1, 16)
    none = torch.zeros(1, 1, 16)
    assert torch.equal(prompts.condition(none).hidden, embed_prompts(tiny_pipeline, [text]))


def test_a_sequence_that_no_text_has(tiny_pipeline: Any) -> None:
    vocabulary = Vocabulary(tiny_pipeline)
    letters = tiny_pipeline.tokenizer.get_vocab()
    prompts = open_prompts(tiny_pipeline, [[letters["c"], letters["a</w>"]], [letters["c"]]])
    texts = [vocabulary.text(sequence) for sequence in prompts.sequences]
    assert texts == ["ca", None]  # a word has to end


def test_special_tokens_may_not_be_put_in(tiny_pipeline: Any) -> None:
    vocabulary, tokenizer = Vocabulary(tiny_pipeline), tiny_pipeline.tokenizer
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert set(vocabulary.allowed.tolist()) == set(range(len(tokenizer))) - special
    weight = tiny_pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(vocabulary.table, weight[vocabulary.allowed])


def test_the_nearest_token_is_that_of_the_smallest_angle(tiny_pipeline: Any) -> None:
    vocabulary = Vocabulary(tiny_pipeline)
    points = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    cosines = torch.cosine_similarity(points[:, None].double(), vocabulary.table[None].double(), 2)
    assert torch.equal(vocabulary.nearest(points), cosines.argmax(1))
    assert vocabulary.nearest(3 * vocabulary.table).tolist() == list(range(len(vocabulary.table)))


@pytest.mark.parametrize("defense", ["none", "sld-max", "negative-prompt"])
def test_tokens_are_drawn_as_their_text_is(tiny_pipeline: Any, defense: str) -> None:
    target = target_of(tiny_pipeline, defense)
    vocabulary = Vocabulary(tiny_pipeline)
    sequences = open_prompts(tiny_pipeline, [vocabulary.tokens(text) for text in TEXTS]).sequences
    with warnings.catch_warnings(), defended(tiny_pipeline, target.defense):
        warnings.simplefilter("error")  # a hook that did nothing would say so
        written = draw_sequences(target, TASKS, sequences, TEXTS)
        embedded = draw_sequences(target, TASKS, sequences, [None, None])
        mixed = draw_sequences(target, TASKS, sequences, [None, TEXTS[1]])
        plain = target.draw(TASKS)
    for samples in zip(written, embedded, mixed, plain, strict=True):
        pictures = [sample.image.astype(int) for sample in samples]
        assert all(np.abs(picture - pictures[3]).max() <= 1 for picture in pictures)
    assert np.abs(written[0].image.astype(int) - written[1].image).max() > 1


def loss_by_hand(
    pipeline: Any, z: torch.Tensor, noise: torch.Tensor, time: int, text: torch.Tensor
) -> float:
    """The squared error of the noise where it is at least 1 / gamma of the signal."""
    alpha = pipeline.scheduler.alphas_cumprod[time].double()
    noised = alpha.sqrt() * z.double() + (1 - alpha).sqrt() * noise.double()
    with torch.no_grad():
        predicted = pipeline.unet(noised.float(), time, text).sample.double()
    bound = min(1.0, GAMMA * float((1 - alpha) / alpha))
    return bound * float((predicted - noise).square().mean())


def test_the_loss_is_the_papers_where_noise_is_high(tiny_pipeline: Any) -> None:
    z, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([30, 500, 900])
    text = embed_prompts(tiny_pipeline, ["a knife", "a cat", ""])
    with torch.no_grad():
        losses = denoising_loss(target_of(tiny_pipeline), z, noise, times, TextCondition(text))
    for row, time in enumerate(times.tolist()):
        one = slice(row, row + 1)
        expected = loss_by_hand(tiny_pipeline, z[one], noise[one], time, text[one])
        assert float(losses[row]) == pytest.approx(expected, rel=1e-3)


def test_gradients_reach_the_embeddings(tiny_pipeline: Any) -> None:
    target = target_of(tiny_pipeline)
    prompts = open_prompts(tiny_pipeline, [[~0, 3, ~1], [~1, ~0, 5]])
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    times = torch.tensor([700, 900])
    embeddings = torch.randn(2, 2, 16, generator=generator)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return denoising_loss(target, z, noise, times, prompts.condition(at)).sum()

    tiny_pipeline.unet.double()
    tiny_pipeline.text_encoder.double()
    with frozen(tiny_pipeline):
        point = embeddings.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point)
        direction = gradient / gradient.norm()
        with torch.no_grad():
            rise = loss(embeddings + 0.1 * direction) - loss(embeddings - 0.1 * direction)
    assert float(rise / 0.2) == pytest.approx(float(gradient.norm()), rel=0.05)
    assert (gradient.abs().sum(dim=2) > 0).all()


def test_weights_are_trainable_again_afterwards(tiny_pipeline: Any) -> None:
    parameters = list(tiny_pipeline.unet.parameters())
    parameters[0].requires_grad_(False)
    before = [parameter.requires_grad for parameter in parameters]

    def interrupted() -> None:
        with frozen(tiny_pipeline):
            assert not any(parameter.requires_grad for parameter in parameters)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [parameter.requires_grad for parameter in parameters] == before


def by_bisection(point: np.ndarray) -> np.ndarray:
    """The projection as the released code finds it, in float64."""
    low, high = point.min() - 1, point.max()
    for _ in range(100):
        middle = (low + high) / 2
        if np.clip(point - middle, 0, None).sum() > 1:
            low = middle
        else:
            high = middle
    return np.clip(point - high, 0, None)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12))
def test_the_nearest_point_of_the_simplex(values: list[float]) -> None:
    found = on_simplex(torch.tensor([values, values[::-1]], dtype=torch.float32))
    expected = by_bisection(np.array(values))
    assert np.allclose(found[0].numpy(), expected, atol=1e-5)
    assert np.allclose(found[1].numpy(), expected[::-1], atol=1e-5)
    assert torch.allclose(found.sum(1), torch.ones(2), atol=1e-5)


@given(st.integers(0, 12), st.integers(1, 5))
def test_open_places_stand_between_a_goals_tokens(length: int, every: int) -> None:
    goal = list(range(10, 10 + length))
    layout = interleaved(goal, every)
    opened = [place for place in layout if place < 0]
    assert [token for token in layout if token >= 0] == goal
    assert opened == [~slot for slot in range(length // every + 1)]
    assert [i for i, token in enumerate(layout) if token < 0] == [
        slot * (every + 1) for slot in range(len(opened))
    ]


def test_the_concepts_words_make_room(tiny_pipeline: Any) -> None:
    texts = ["a knife in a house", "a cat", "knife and knife"]
    prompts = inverted_prompts(target_of(tiny_pipeline), texts, vectors=2)
    vocabulary = Vocabulary(tiny_pipeline)
    for row, (parts, text) in enumerate(
        [(["a", "in a house"], texts[0]), (["", "a cat"], texts[1]), (["", "and", ""], texts[2])]
    ):
        slots = prompts.slots[row].tolist()
        layout: list[int] = []
        for number, part in enumerate(parts):
            layout += ([~0, ~1] if number else []) + vocabulary.tokens(part)
        expected = open_prompts(tiny_pipeline, [layout])
        assert slots == expected.slots[0].tolist(), text
        assert torch.equal(
            prompts.sequences[row][expected.slots[0] < 0],
            expected.sequences[0][expected.slots[0] < 0],
        )


def test_a_batch_of_texts_is_open_as_each_alone(build_pipeline: Callable[..., Any]) -> None:
    pipeline = build_pipeline(seed=3)
    prompts = open_prompts(pipeline, [[~0, 4], [5, ~0, ~1], [7]])
    embeddings = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(1))
    together = prompts.condition(embeddings).hidden.detach()
    for row in range(3):
        alone = prompts[[row]].condition(embeddings[[row]]).hidden.detach()
        assert torch.allclose(together[row], alone[0], atol=1e-5)
