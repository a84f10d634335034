"""AdvUnlearn against its paper's losses on a copy of the encoder, and what it changes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import safegen
from safegen.concepts import Concept
from safegen.defenses import create_defense, defended
from safegen.defenses.advunlearn import (
    AdvUnlearnSettings,
    AdvUnlearnTraining,
    erase,
    layer_weights,
    prefixed,
)
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint
from safegen.patches.patch import Patch

KNIVES = Concept("knives", "a knife", ("knife", "a knife"))
KEPT = ["a cat", "a house"]
FEW = AdvUnlearnSettings(
    iterations=3, warmup=1, learning_rate=1e-2, batch=2, retained_batch=3, tokens=2,
    attack_steps=2, attack_rate=0.1, interval=1, steps=3, negative_guidance=1.5, preserve=0.4,
)  # fmt: skip


def moved(pipeline: Any) -> Any:
    """The same pipeline whose encoder has been trained, and the original encoder."""
    original = deepcopy(pipeline.text_encoder)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in layer_weights(pipeline.text_encoder).values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return original


def hidden(encoder: Any, ids: list[list[int]], prefix: torch.Tensor | None = None) -> torch.Tensor:
    """Hidden states of whole sequences, the embeddings of a prefix written into a copy's table."""
    rows = []
    for row, sequence in enumerate(ids):
        copy, tokens = deepcopy(encoder), list(sequence)
        if prefix is not None:
            table, count = copy.get_input_embeddings().weight, prefix.shape[1]
            free = [i for i in range(len(table)) if i not in tokens][:count]
            for token, value in zip(free, prefix[row], strict=True):
                table.data[token] = value
            tokens = [tokens[0], *free, *tokens[1:-count]]
        rows.append(copy(torch.tensor([tokens]))[0][0])
    return torch.stack(rows).detach()


@pytest.mark.parametrize("with_prefix", [False, True])
def test_the_loss_is_the_papers(tiny_pipeline: Any, with_prefix: bool) -> None:
    pipeline = tiny_pipeline
    training = AdvUnlearnTraining(pipeline, KNIVES.words, KEPT, FEW)
    original = moved(pipeline)
    training.rows = torch.tensor([1, 0])
    if with_prefix:
        training.prefix = torch.randn(2, 2, 16, generator=torch.Generator().manual_seed(1))
    draws = torch.Generator()
    draws.set_state(training._generator.get_state())
    with torch.no_grad():
        loss = float(training.loss())

    tokenizer, unet = pipeline.tokenizer, pipeline.unet
    texts = tokenizer(["a knife", "knife"], padding="max_length").input_ids
    kept = tokenizer(KEPT, padding="max_length").input_ids
    empty = tokenizer([""] * 2, padding="max_length").input_ids

    def drawn(pool: Any, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        done = int(torch.randint(3, (1,), generator=draws))
        low, high = [(667, 1000), (333, 667), (0, 333)][done]
        time = torch.randint(low, high, (1,), generator=draws)
        return pool.latents[done][rows], time

    with torch.no_grad():
        z, time = drawn(training.erased, training.rows)
        e_0 = unet(z, time, hidden(original, empty)).sample.double()
        e_c = unet(z, time, hidden(original, texts)).sample.double()
        e = unet(z, time, hidden(pipeline.text_encoder, texts, training.prefix)).sample.double()
        unlearn = ((e - (e_0 - 1.5 * (e_c - e_0))) ** 2).mean()
        rows = torch.randint(2, (3,), generator=draws)
        z, time = drawn(training.retained, rows)
        chosen = [kept[int(i)] for i in rows]
        before = unet(z, time, hidden(original, chosen)).sample.double()
        now = unet(z, time, hidden(pipeline.text_encoder, chosen)).sample.double()
    expected = float(unlearn + 0.4 * ((now - before) ** 2).mean())
    assert loss == pytest.approx(expected, rel=1e-4)
    assert float(((now - before) ** 2).mean()) > 1e-6


def test_latents_are_those_of_diffusers_own_sampler(tiny_pipeline: Any) -> None:
    training = AdvUnlearnTraining(tiny_pipeline, ["a knife"], KEPT, FEW)
    seen: list[torch.Tensor] = []

    def keep(_pipe: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values["latents"].clone())
        return values

    tiny_pipeline(
        "a knife", num_inference_steps=3, guidance_scale=3.0, callback_on_step_end=keep,
        latents=training.erased.latents[0], output_type="latent",
    )  # fmt: skip
    for ours, theirs in zip(training.erased.latents[1:], seen[:2], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_prefix_leads_the_trained_encoder_back(tiny_pipeline: Any) -> None:
    steps = replace(FEW, attack_steps=40, attack_rate=0.05, batch=2)
    found = []
    for attack in (replace(steps, attack_steps=1, attack_rate=1e-9), steps):
        training = AdvUnlearnTraining(tiny_pipeline, KNIVES.words, KEPT, attack)
        kept = deepcopy(tiny_pipeline.text_encoder.state_dict())
        moved(tiny_pipeline)
        training.rows = torch.tensor([0, 1])
        training.attack()
        errors = []
        with torch.no_grad():
            for done, time in ((0, 900), (1, 500), (2, 100)):
                z, times = training.erased.latents[done], torch.full((2,), time)
                wanted = training._predict(z, times, training.erased.hidden)
                states = training._encoded(training.erased.ids, training.prefix)
                errors.append(float((training._predict(z, times, states) - wanted).square().mean()))
        found.append(np.mean(errors))
        tiny_pipeline.text_encoder.load_state_dict(kept)
    assert found[1] < 0.95 * found[0]


def test_a_prefix_keeps_the_end_of_a_text() -> None:
    ids = torch.tensor([[8, 1, 2, 9, 9, 9], [8, 1, 2, 3, 4, 9]])
    longer = prefixed(ids, 2, 9)
    assert longer[0].tolist() == [8, 1, 1, 1, 2, 9]
    assert longer[1].tolist() == [8, 1, 1, 1, 2, 9]
    assert torch.equal(prefixed(ids, 0, 9), ids)


def test_the_patch_is_of_the_encoders_layers_and_the_pipeline_stays(tiny_pipeline: Any) -> None:
    pipeline = tiny_pipeline
    parts = (pipeline.unet, pipeline.text_encoder)
    before = [fingerprint(part) for part in parts]
    told: list[tuple[int, int]] = []
    patch = erase(pipeline, KNIVES, [], KEPT, FEW, lambda done, of: told.append((done, of)))
    assert [fingerprint(part) for part in parts] == before
    assert all(each.requires_grad and each.grad is None for p in parts for each in p.parameters())
    assert not pipeline.text_encoder.get_input_embeddings()._forward_hooks
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert patch.differences.keys() == layer_weights(pipeline.text_encoder).keys()
    assert patch.metadata["base"]["fingerprint"] == before[1]
    assert patch.metadata["settings"]["words"] == ["knife", "a knife"]
    safegen.apply(pipeline, patch)
    assert fingerprint(pipeline.unet) == before[0] != fingerprint(pipeline.text_encoder)
    safegen.remove(pipeline, patch)
    assert [fingerprint(part) for part in parts] == before


def test_training_leads_away_from_the_concept_and_keeps_the_rest(tiny_pipeline: Any) -> None:
    settings = replace(FEW, iterations=40, warmup=20, preserve=1.0, attack_steps=3)
    patch = erase(tiny_pipeline, KNIVES, [], KEPT, settings)
    training = AdvUnlearnTraining(tiny_pipeline, KNIVES.words, KEPT, replace(settings, batch=16))
    training.rows = torch.arange(16) % 2
    start = training._generator.get_state()
    losses = []
    for state in ("before", "after"):
        if state == "after":
            safegen.apply(tiny_pipeline, patch)
        training._generator.set_state(start)
        with torch.no_grad():
            losses.append(float(training.loss()))
    assert losses[1] < 0.9 * losses[0]


def test_what_does_not_fit_is_refused(tiny_pipeline: Any, files: Any) -> None:
    with pytest.raises(SafegenError, match="which texts stay: advunlearn,preserved="):
        erase(tiny_pipeline, KNIVES, [], [], FEW)
    with pytest.raises(SafegenError, match="AdvUnlearn: interval must be a whole number"):
        AdvUnlearnSettings(interval=0)
    with pytest.raises(SafegenError, match="a patch of advunlearn, not of safegen"):
        create_defense(f"safegen:{files}/advunlearn.safetensors")
    patch = Patch.load(files / "advunlearn.safetensors")
    with pytest.raises(SafegenError, match="the part 'vae', which"):
        safegen.apply(tiny_pipeline, replace(patch, metadata={**patch.metadata, "part": "vae"}))
    spec = f"advunlearn:{files}/advunlearn.safetensors"
    with defended(tiny_pipeline, spec), pytest.raises(SafegenError, match="applied already"):
        safegen.apply(tiny_pipeline, patch)
    tiny_pipeline.to(torch.bfloat16)
    with pytest.raises(SafegenError, match="trains in float32"):
        erase(tiny_pipeline, KNIVES, [], KEPT, FEW)
