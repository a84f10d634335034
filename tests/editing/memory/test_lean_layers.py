"""Layers that keep less must give the same numbers to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.activations import GEGLU

from safegen.editing.memory import lean_layers as layers
from safegen.editing.memory.lean_layers import lean_layers
from safegen.editing.memory.prediction import AllocatedMemory


@pytest.fixture(autouse=True)
def _none_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "SMALL", 0)


class Network(torch.nn.Module):
    """A trained layer, then each kind of layer that can keep less."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(4, 8, 1)
        self.frozen = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2).requires_grad_(False)
        self.named = torch.nn.Conv2d(8, 8, 3, padding="same", bias=False).requires_grad_(False)
        self.reflected = torch.nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.reflected.requires_grad_(False)
        self.gated = GEGLU(8, 6)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = self.reflected(self.named(self.frozen(self.first(pixels).sin()).sin()).sin())
        result: torch.Tensor = self.gated(pixels.flatten(2).transpose(1, 2))
        return result


def gradients(network: Network, pixels: torch.Tensor, dtype: torch.dtype | None) -> list[Any]:
    network.zero_grad(set_to_none=True)
    pixels = pixels.clone().requires_grad_()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        output = network(pixels)
    output.float().square().mean().backward()
    return [output.detach(), pixels.grad, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("half", [False, True])
def test_the_results_are_the_same_to_the_last_bit(dtype: torch.dtype | None, half: bool) -> None:
    network, pixels = Network(), torch.randn(2, 4, 10, 10)
    if half and dtype is not None:
        network.frozen.to(dtype)
    before = gradients(network, pixels, dtype)
    with lean_layers(network):
        lean = gradients(network, pixels, dtype)
    after = gradients(network, pixels, dtype)
    for old, new, again in zip(before, lean, after, strict=True):
        assert (old is None) == (new is None)
        if old is not None:
            assert torch.equal(old, new)
            assert torch.equal(old, again)
    assert before[1] is not None
    assert network.frozen.weight.grad is None


def held(network: Network, pixels: torch.Tensor) -> int:
    """Bytes that wait for the backward pass."""
    with AllocatedMemory() as seen:
        output = network(pixels)
        kept = seen.now
        del output
    return kept


def test_less_is_kept_for_the_backward_pass() -> None:
    network, pixels = Network(), torch.randn(8, 4, 64, 64)
    before = held(network, pixels)
    with lean_layers(network):
        assert held(network, pixels) < 0.8 * before
    assert held(network, pixels) == before


def test_a_trained_convolution_keeps_what_it_needs() -> None:
    network, pixels = Network(), torch.randn(1, 4, 8, 8)
    with lean_layers(network):
        network.frozen.requires_grad_(True)
        lean = gradients(network, pixels, None)
        assert network.frozen.weight.grad is not None
        assert bool(network.frozen.weight.grad.any())
    plain = gradients(network, pixels, None)
    assert all(a is None or torch.equal(a, b) for a, b in zip(lean, plain, strict=True))


def test_a_small_denoiser_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network, pixels = Network(), torch.randn(8, 4, 64, 64)
    before = held(network, pixels)
    monkeypatch.setattr(layers, "SMALL", sum(p.numel() for p in network.parameters()) + 1)
    with lean_layers(network):
        assert held(network, pixels) == before
