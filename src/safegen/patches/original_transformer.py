"""Transformers in the original layouts of Stable Diffusion 3 and FLUX.1, as ComfyUI loads them.

The originals fuse queries, keys and values, and single blocks of FLUX the first layer of the MLP as
well. Norms without a gate have the shift before the scale there, and after it in diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from safegen.errors import SafegenError

Tensors = dict[str, torch.Tensor]
_Table = Mapping[str, tuple[str, ...]]
"""Layers of diffusers, fused in this order, by the original layer."""


@dataclass(frozen=True)
class _Layout:
    """Names of one transformer's weights.

    Attributes:
        outside: layers outside blocks.
        blocks: for each list of blocks its original name, and its layers.
    """

    outside: _Table
    blocks: Mapping[str, tuple[str, _Table]]


_IMAGE, _TEXT = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")


def _fused(attention: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{attention}.{layer}" for layer in layers)


_SD3 = _Layout(
    outside={
        "x_embedder.proj": ("pos_embed.proj",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
        "context_embedder": ("context_embedder",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    },
    blocks={
        "transformer_blocks": (
            "joint_blocks",
            {
                "x_block.adaLN_modulation.1": ("norm1.linear",),
                "context_block.adaLN_modulation.1": ("norm1_context.linear",),
                "x_block.attn.qkv": _fused("attn", _IMAGE),
                "context_block.attn.qkv": _fused("attn", _TEXT),
                "x_block.attn.ln_q": ("attn.norm_q",),
                "x_block.attn.ln_k": ("attn.norm_k",),
                "context_block.attn.ln_q": ("attn.norm_added_q",),
                "context_block.attn.ln_k": ("attn.norm_added_k",),
                "x_block.attn.proj": ("attn.to_out.0",),
                "context_block.attn.proj": ("attn.to_add_out",),
                "x_block.attn2.qkv": _fused("attn2", _IMAGE),
                "x_block.attn2.ln_q": ("attn2.norm_q",),
                "x_block.attn2.ln_k": ("attn2.norm_k",),
                "x_block.attn2.proj": ("attn2.to_out.0",),
                "x_block.mlp.fc1": ("ff.net.0.proj",),
                "x_block.mlp.fc2": ("ff.net.2",),
                "context_block.mlp.fc1": ("ff_context.net.0.proj",),
                "context_block.mlp.fc2": ("ff_context.net.2",),
            },
        )
    },
)
_FLUX = _Layout(
    outside={
        "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
        "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
        "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
        "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
        "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
        "txt_in": ("context_embedder",),
        "img_in": ("x_embedder",),
        "final_layer.adaLN_modulation.1": ("norm_out.linear",),
        "final_layer.linear": ("proj_out",),
    },
    blocks={
        "transformer_blocks": (
            "double_blocks",
            {
                "img_mod.lin": ("norm1.linear",),
                "txt_mod.lin": ("norm1_context.linear",),
                "img_attn.qkv": _fused("attn", _IMAGE),
                "txt_attn.qkv": _fused("attn", _TEXT),
                "img_attn.norm.query_norm": ("attn.norm_q",),
                "img_attn.norm.key_norm": ("attn.norm_k",),
                "txt_attn.norm.query_norm": ("attn.norm_added_q",),
                "txt_attn.norm.key_norm": ("attn.norm_added_k",),
                "img_attn.proj": ("attn.to_out.0",),
                "txt_attn.proj": ("attn.to_add_out",),
                "img_mlp.0": ("ff.net.0.proj",),
                "img_mlp.2": ("ff.net.2",),
                "txt_mlp.0": ("ff_context.net.0.proj",),
                "txt_mlp.2": ("ff_context.net.2",),
            },
        ),
        "single_transformer_blocks": (
            "single_blocks",
            {
                "modulation.lin": ("norm.linear",),
                "linear1": (*_fused("attn", _IMAGE), "proj_mlp"),
                "linear2": ("proj_out",),
                "norm.query_norm": ("attn.norm_q",),
                "norm.key_norm": ("attn.norm_k",),
            },
        ),
    },
)
LAYOUTS: Mapping[str, _Layout] = {"SD3Transformer2DModel": _SD3, "FluxTransformer2DModel": _FLUX}
"""Original layouts by the transformer's class."""


def transformer_tensors(transformer: Any) -> Tensors:
    """Collect a transformer's weights under their original names, precision kept.

    Raises:
        SafegenError: see ``original_names``.
    """
    state = {name: value.detach().cpu() for name, value in transformer.state_dict().items()}
    return original_names(type(transformer).__name__, state)


def original_names(kind: str, state: Mapping[str, torch.Tensor]) -> Tensors:
    """Turn a transformer's weights into those of the original layout.

    Args:
        kind: class of the transformer, one of ``LAYOUTS``.
        state: its weights by diffusers' names.

    Raises:
        SafegenError: the layout has no place for a weight.
    """
    width = state["proj_out.weight"].shape[1]
    tensors, used = {}, set()
    if "pos_embed.pos_embed" in state:  # SD3's positions, which are no layer
        tensors["pos_embed"] = state["pos_embed.pos_embed"]
        used.add("pos_embed.pos_embed")
    for original, layers in _layers(LAYOUTS[kind], state):
        for part in ("weight", "bias"):
            names = [f"{layer}.{part}" for layer in layers]
            if names[0] in state:
                value = torch.cat([state[name] for name in names]) if names[1:] else state[names[0]]
                ungated = layers[0].endswith(".linear") and len(value) == 2 * width
                found = torch.cat(value.chunk(2)[::-1]) if ungated else value
                tensors[f"{original}.{_original_part(original, part)}"] = found
                used.update(names)
    strays = sorted(state.keys() - used)
    if strays:
        raise SafegenError(
            f"{kind}: the original layout has no place for {strays[0]}, so it cannot hold this "
            "model; use --format diffusers"
        )
    return tensors


def _layers(
    layout: _Layout, state: Mapping[str, torch.Tensor]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """All layers with their full names, original and diffusers'."""
    yield from layout.outside.items()
    for ours, (theirs, table) in layout.blocks.items():
        numbers = {int(name.split(".")[1]) for name in state if name.startswith(f"{ours}.")}
        for number in sorted(numbers):
            for original, layers in table.items():
                inside = tuple(f"{ours}.{number}.{layer}" for layer in layers)
                yield f"{theirs}.{number}.{original}", inside


def _original_part(original: str, part: str) -> str:
    return "scale" if original.endswith(("query_norm", "key_norm")) else part
