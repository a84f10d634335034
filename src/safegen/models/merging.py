"""One token for many equal ones in joint attention: less computation, the same result.

Stable Diffusion 3 without T5 gets 256 tokens of zeros in its place. Text tokens have no positions
there, so equal ones stay equal through all blocks, and n equal keys weigh as much as one whose
logits are larger by log n.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch.overrides import TorchFunctionMode


def merge_zero_tokens(transformer: Any) -> None:
    """Have an ``SD3Transformer2DModel`` merge the tokens of zeros at the end of its texts.

    Outputs and gradients are the same up to rounding. Texts without such tokens are not changed.
    """
    transformer.set_attn_processor(MergedTokens())
    transformer.register_forward_pre_hook(_merge, with_kwargs=True)
    transformer.merges_zero_tokens = True


def merged_inputs(denoiser: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a denoiser's ``forward``, merged where a call of the denoiser would merge them."""
    if not getattr(denoiser, "merges_zero_tokens", False):
        return inputs
    changed = _merge(denoiser, (), inputs)
    return inputs if changed is None else changed[1]


def _merge(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Replace n tokens of zeros by their mean, so that each gets its gradient."""
    hidden = kwargs.get("encoder_hidden_states")
    if hidden is None or (count := _zeros_at_end(hidden)) < 2:
        return None
    words, zeros = hidden.split([hidden.shape[1] - count, count], dim=1)
    others = kwargs.get("joint_attention_kwargs") or {}
    return args, {
        **kwargs,
        "encoder_hidden_states": torch.cat([words, zeros.mean(dim=1, keepdim=True)], dim=1),
        "joint_attention_kwargs": {**others, "copies": count},
    }


def _zeros_at_end(hidden: torch.Tensor) -> int:
    """Number of tokens at the end that are zeros in all texts (B, L, D)."""
    filled = (hidden.detach() != 0).any(dim=2).any(dim=0).nonzero()
    return hidden.shape[1] - (int(filled[-1]) + 1 if len(filled) else 0)


class MergedTokens(JointAttnProcessor2_0):  # type: ignore[misc]
    """Attention in which the last token of a text stands for several."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        copies: int = 1,
    ) -> Any:
        """See ``JointAttnProcessor2_0``; ``copies`` is what the last token of a text stands for."""
        given = (attn, hidden_states, encoder_hidden_states, attention_mask)
        if encoder_hidden_states is None or copies == 1:
            return super().__call__(*given)
        with _LastKeyWeighs(copies):
            return super().__call__(*given)


class _LastKeyWeighs(TorchFunctionMode):
    """Attention whose last key counts ``copies`` times: softmax of logits + log(copies)."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self._copies = copies

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = dict(kwargs or {})
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            weights = query.new_zeros(1, 1, 1, key.shape[-2])
            weights[..., -1] = math.log(self._copies)
            kwargs["attn_mask"] = weights
        return function(*args, **kwargs)
