"""Tokens and their embeddings, as CLIP encoders take them: the same as the text they spell."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.errors import SafegenError
from safegen.models.conditioning import encode_prompts
from safegen.models.tokens import (
    check_clip_alone,
    clip_encoders,
    embed_tokens,
    encode_tokens,
    padded_as,
    token_table,
)

TEXTS = ["a knife and a cat", "a house"]
WIDTHS = {"sd1": [16], "sd3": [16, 24], "sdxl": [16, 24]}


@pytest.fixture(scope="module", params=WIDTHS)
def family(request: pytest.FixtureRequest) -> str:
    """Families whose texts pass CLIP encoders alone."""
    return str(request.param)


def _sequences(pipeline: Any) -> torch.Tensor:
    """The texts' tokens by the first tokenizer."""
    tokens = pipeline.tokenizer(TEXTS, padding="max_length", return_tensors="pt").input_ids
    assert isinstance(tokens, torch.Tensor)
    return tokens


def test_tokens_are_encoded_as_the_text_that_they_spell(pipeline: Any) -> None:
    expected, sequences = encode_prompts(pipeline, TEXTS), _sequences(pipeline)
    for embeddings in (None, embed_tokens(pipeline, sequences)):
        found = encode_tokens(pipeline, sequences, embeddings)
        assert found.embeddings.keys() == expected.embeddings.keys()
        for name, value in expected.embeddings.items():
            assert torch.equal(found.embeddings[name], value)
    for _, encoder in clip_encoders(pipeline):
        assert not encoder._forward_pre_hooks
        assert not encoder.get_input_embeddings()._forward_hooks


def test_every_encoder_pads_as_its_own_tokenizer(pipeline: Any) -> None:
    for number, (tokenizer, _) in enumerate(clip_encoders(pipeline)):
        name = "tokenizer" if number == 0 else f"tokenizer_{number + 1}"
        own = getattr(pipeline, name)(TEXTS, padding="max_length", return_tensors="pt").input_ids
        assert torch.equal(padded_as(_sequences(pipeline), tokenizer), own)


def test_gradients_reach_the_embeddings_of_all_encoders(pipeline: Any, family: str) -> None:
    sequences = _sequences(pipeline)
    embeddings = embed_tokens(pipeline, sequences).requires_grad_()
    condition = encode_tokens(pipeline, sequences, embeddings)
    assert token_table(pipeline).shape[1] == embeddings.shape[2] == sum(WIDTHS[family])
    for value in condition.embeddings.values():
        (gradient,) = torch.autograd.grad(value.square().sum(), [embeddings], retain_graph=True)
        parts = gradient.split(WIDTHS[family], dim=2)
        # SDXL's pooled features are those of its second encoder.
        assert parts[-1].abs().sum() > 0
        assert family == "sdxl" or parts[0].abs().sum() > 0


def test_models_whose_texts_pass_other_encoders_are_refused(
    build_family: Callable[..., Any],
) -> None:
    flux = build_family("flux")
    assert len(clip_encoders(flux)) == 1
    with pytest.raises(SafegenError, match=r"FluxPipeline: .* its T5EncoderModel does not take"):
        check_clip_alone(flux)
    with pytest.raises(SafegenError, match="PixArtSigmaPipeline has T5EncoderModel; attack"):
        check_clip_alone(build_family("pixart"))
    joint = build_family("sd3")
    joint.tokenizer_2 = copy.deepcopy(joint.tokenizer_2)
    joint.tokenizer_2.add_tokens(["zzzzz"])
    with pytest.raises(SafegenError, match="have different tokens"):
        clip_encoders(joint)
