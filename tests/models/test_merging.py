"""Tokens of zeros in the place of a missing T5 are merged, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from safegen.models.kernels import use_plain_kernels
from safegen.models.loading import load_pipeline
from safegen.models.merging import merge_zero_tokens

WORDS, ZEROS = 5, 20


def _transformer() -> Any:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=6, pos_embed_max_size=8, dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()  # fmt: skip


def _inputs(zeros: int = ZEROS) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(2, WORDS, 12, generator=generator)
    return {
        "hidden_states": torch.randn(2, 4, 8, 8, generator=generator),
        "encoder_hidden_states": torch.nn.functional.pad(words, (0, 0, 0, zeros)),
        "pooled_projections": torch.randn(2, 6, generator=generator),
        "timestep": torch.tensor([20.0, 800.0]),
    }


def _lengths(transformer: Any, inputs: dict[str, torch.Tensor]) -> set[int]:
    """Numbers of text tokens that the blocks get."""
    found = set()
    block = transformer.transformer_blocks[1]
    handle = block.register_forward_pre_hook(
        lambda _, __, kwargs: found.add(kwargs["encoder_hidden_states"].shape[1]), with_kwargs=True
    )
    transformer(**inputs)
    handle.remove()
    return found


def test_outputs_and_gradients_are_the_same() -> None:
    transformer, found = _transformer(), []
    for merged in (False, True):
        if merged:
            merge_zero_tokens(transformer)
        inputs = _inputs()
        hidden = inputs["encoder_hidden_states"].requires_grad_()
        output = transformer(**inputs).sample
        weight = transformer.transformer_blocks[0].attn.to_k.weight
        found.append((output, *torch.autograd.grad(output.pow(2).sum(), (hidden, weight))))
    for plain, light in zip(*found, strict=True):
        torch.testing.assert_close(light, plain, rtol=1e-4, atol=1e-5)
    assert found[0][1][:, WORDS:].abs().max() > 0


def test_recomputed_blocks_see_the_same_tokens() -> None:
    transformer, found = _transformer(), []
    merge_zero_tokens(transformer)
    for recomputed in (False, True):
        if recomputed:
            transformer.enable_gradient_checkpointing()
        weight = transformer.transformer_blocks[0].attn.to_k.weight
        loss = transformer.train()(**_inputs()).sample.pow(2).sum()
        found.append(*torch.autograd.grad(loss, weight))
    torch.testing.assert_close(*found)


def test_only_zeros_at_the_end_of_all_texts_are_merged() -> None:
    transformer = _transformer()
    merge_zero_tokens(transformer)
    assert _lengths(transformer, _inputs()) == {WORDS + 1}
    assert _lengths(transformer, _inputs(zeros=1)) == {WORDS + 1}
    longer = _inputs()
    longer["encoder_hidden_states"][1, WORDS + 3] = 1.0
    assert _lengths(transformer, longer) == {WORDS + 4 + 1}


def test_a_loaded_model_without_t5_merges_them(build_family: Any, tmp_path: Path) -> None:
    build_family("sd3").save_pretrained(tmp_path)
    transformer: Any = load_pipeline(tmp_path, device="cpu").transformer
    processors = {type(each).__name__ for each in transformer.attn_processors.values()}
    assert processors == {"MergedTokens"}


def test_plain_kernels_merge_none(build_family: Any, tmp_path: Path) -> None:
    build_family("sd3").save_pretrained(tmp_path)
    use_plain_kernels()
    try:
        transformer: Any = load_pipeline(tmp_path, device="cpu").transformer
    finally:
        use_plain_kernels(False)
    processors = {type(each).__name__ for each in transformer.attn_processors.values()}
    assert processors == {"JointAttnProcessor2_0"}
