"""HiDream-I1."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from safegen.models.families import Family, encoded, families
from safegen.models.texts import POOLED, TextCondition

LLAMA = "encoder_hidden_states_llama3"
"""Hidden states of Llama's layers, by the name of the denoiser's call."""


@families.register("hidream")
class HiDream(Family):
    """Joint attention; hidden states of T5 and of all layers of Llama, two CLIPs' pooled features.

    The network predicts z_0 - n.
    """

    pipelines = ("HiDreamImagePipeline",)
    denoisers = ("HiDreamImageTransformer2DModel",)

    def encode(self, pipeline: Any, prompts: list[str]) -> TextCondition:
        hidden, _, llama, _, pooled, _ = encoded(
            pipeline, prompts, do_classifier_free_guidance=False
        )
        added = {POOLED: pooled.float(), LLAMA: llama.float().transpose(0, 1)}
        return TextCondition(hidden.float(), None, added)

    def inputs(
        self, config: Any, z_t: torch.Tensor, timesteps: torch.Tensor, texts: TextCondition
    ) -> dict[str, Any]:
        del config
        _let_gradients_pass()
        return {
            "hidden_states": z_t,
            "timesteps": timesteps.to(z_t.dtype),
            "encoder_hidden_states_t5": texts.hidden,
            LLAMA: texts.added[LLAMA].transpose(0, 1),
            "pooled_embeds": texts.added[POOLED],
        }

    def unpacked(self, output: torch.Tensor, z_t: torch.Tensor) -> torch.Tensor:
        """The flow is n - z_0."""
        del z_t
        return -output


@cache
def _let_gradients_pass() -> None:
    """Let experts give gradients outside of training mode, in which outputs have another layout.

    diffusers computes them there in a method that turns gradients off, whatever the caller asks.
    """
    from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU

    without_gradients: Any = MOEFeedForwardSwiGLU.moe_infer

    def infer(
        self: Any, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        given = (x, chosen, weights)
        return (_mixed if torch.is_grad_enabled() else without_gradients)(self, *given)

    MOEFeedForwardSwiGLU.moe_infer = infer


def _mixed(
    layer: Any, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sum what its experts make of each token (N, D), by the token's weights (N * K, 1)."""
    chosen, weights = chosen.view(len(x), -1), weights.view(len(x), -1)
    total = torch.zeros_like(x)
    for number, expert in enumerate(layer.experts):
        tokens, places = (chosen == number).nonzero(as_tuple=True)
        made = expert(x[tokens]) * weights[tokens, places, None]
        total = total.index_add(0, tokens, made.to(x))
    return total
