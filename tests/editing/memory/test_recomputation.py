"""Recomputing activations changes what a step takes, and nothing of what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from safegen.editing.latents import TripletLatents
from safegen.editing.memory.prediction import AllocatedMemory
from safegen.editing.memory.recomputation import recomputation
from safegen.editing.memory.selective import multiply_adds
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.anatomy import self_attention_names

WIDTH = 128
"""Wide enough that a convolution's results are worth keeping."""
SETTINGS = EditSettings.of(steps=2, unsafe_batch=2, warmup_steps=1)


@pytest.fixture
def unet(build_pipeline: Callable[..., Any]) -> Any:
    network = build_pipeline(width=WIDTH).unet.requires_grad_(False)
    parameters = dict(network.named_parameters())
    for name in self_attention_names(network):
        parameters[name].requires_grad_(True)
    return network


def backward(network: Any, how: Any, twice: bool = False) -> tuple[list[torch.Tensor], int]:
    """Gradients of the trained weights and of the text, and the most bytes taken."""
    generator = torch.Generator().manual_seed(0)
    z_t, text = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 16, 16)))
    text.requires_grad_(True)
    with recomputation(network, how), AllocatedMemory() as seen:
        loss = network(z_t, torch.tensor([5, 500]), text).sample.pow(2).mean()
        of_text = torch.autograd.grad(loss, text, retain_graph=True)[0] if twice else text
        loss.backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    return [*gradients, of_text.detach().clone()], seen.peak


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize("twice", [False, True])
def test_gradients_are_the_same(unet: Any, how: Any, twice: bool) -> None:
    kept, _ = backward(unet, "none", twice)
    again, _ = backward(unet, how, twice)
    assert len(kept) > 8
    for expected, gradient in zip(kept, again, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)


def test_the_more_is_recomputed_the_less_memory_it_takes(unet: Any) -> None:
    nothing, cheap, all_of_it = (backward(unet, how)[1] for how in ("none", "selective", "full"))
    assert all_of_it < cheap < nothing


@pytest.mark.parametrize("how", ["selective", "full"])
def test_the_switch_is_turned_back(unet: Any, how: Any) -> None:
    def switched() -> set[bool]:
        return {m.gradient_checkpointing for m in unet.modules() if m in blocks}

    blocks = {m for m in unet.modules() if hasattr(m, "gradient_checkpointing")}
    assert switched() == {False}
    with recomputation(unet, how):
        assert True in switched()
    assert switched() == {False}
    with pytest.raises(ZeroDivisionError), recomputation(unet, how):
        _ = 1 // 0
    assert switched() == {False}


def test_a_network_without_it_is_refused() -> None:
    with (
        pytest.raises(SafegenError, match="Linear has no gradient checkpointing"),
        recomputation(torch.nn.Linear(1, 1), "full"),
    ):
        pass


def test_what_an_operator_multiplies() -> None:
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            seen.append(multiply_adds(function, args))
            return function(*args, **(kwargs or {}))

    ones = torch.ones
    with Watch():
        torch.nn.functional.conv2d(ones(1, 6, 5, 5), ones(2, 6, 3, 3))
        torch.nn.functional.linear(ones(4, 7), ones(3, 7), ones(3))
        ones(2, 4, 5) @ ones(2, 5, 6)
        torch.nn.functional.scaled_dot_product_attention(*(ones(1, 2, 9, 4) for _ in range(3)))
        torch.nn.functional.silu(ones(3))
    assert {count for count in seen if count} == {6 * 3 * 3, 7, 5, 2 * 9}


@pytest.mark.parametrize("how", ["selective", "full"])
def test_an_edit_comes_out_the_same(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, how: Any
) -> None:
    def losses(how: Any) -> list[float]:
        settings = SETTINGS.changed(gradient_checkpointing=how)
        run = Edit(build_pipeline(width=WIDTH), tiny_latents, settings).run()
        return [loss for record in run for loss in (record.redirect, record.preserve)]

    assert losses(how) == pytest.approx(losses("none"), rel=1e-4, abs=1e-8)


def test_no_graph_is_kept_below_the_first_trained_layer(unet: Any) -> None:
    needs: dict[str, bool] = {}
    for name in ("conv_in", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0"):
        unet.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: needs.update(
                {name: (output[0] if isinstance(output, tuple) else output).requires_grad}
            )
        )
    unet(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 16, 16))
    assert needs == {
        "conv_in": False,
        "down_blocks.0.resnets.0": False,
        "down_blocks.0.attentions.0": True,
    }
