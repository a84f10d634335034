"""Layers through oneDNN give what PyTorch's own give, and only where they may."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.activations import GEGLU
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.models.onednn import onednn_layers

SIZES = st.integers(1, 40)


@settings(deadline=None)
@given(rows=SIZES, width=SIZES, out=SIZES, bias=st.booleans(), strided=st.booleans())
@torch.no_grad()
def test_the_results_are_the_same_but_for_rounding(
    rows: int, width: int, out: int, bias: bool, strided: bool
) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Linear(width, out, bias=bias), GEGLU(width, out, bias=bias)
    inputs = torch.randn(2, rows, 2 * width)
    inputs = inputs[..., ::2] if strided else inputs[..., :width].contiguous()
    expected = [layer(inputs) for layer in layers]
    with onednn_layers(layers):
        found = [layer(inputs) for layer in layers]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_layers_are_exchanged_in_the_block_only() -> None:
    layer = torch.nn.Linear(8, 8)
    with pytest.raises(RuntimeError), onednn_layers([layer]):
        layer(torch.ones(2, 7))
    assert "forward" not in vars(layer)


def test_a_forward_that_somebody_else_exchanged_stays() -> None:
    layer = torch.nn.Linear(8, 8)
    layer.forward = torch.zeros_like  # type: ignore[assignment]
    with onednn_layers([layer]), torch.no_grad():
        assert not layer(torch.ones(2, 8)).any()
    assert layer.forward is torch.zeros_like


@pytest.mark.parametrize("layer", [torch.nn.Linear(8, 8), GEGLU(8, 8)], ids=["linear", "gated"])
def test_gradients_autocast_and_other_precisions_are_as_ever(layer: torch.nn.Module) -> None:
    inputs = torch.randn(2, 8, requires_grad=True)
    with onednn_layers([layer]):
        (gradient,) = torch.autograd.grad(layer(inputs).sum(), inputs)
        assert gradient.any()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert layer(inputs).dtype == torch.bfloat16
    with onednn_layers([layer.double()]), torch.no_grad():
        assert layer(inputs.double()).dtype == torch.float64
    layer.float()


def test_a_hook_on_the_projection_of_a_gated_unit_acts() -> None:
    unit = GEGLU(8, 8)
    unit.proj.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    with onednn_layers([unit]), torch.no_grad():
        assert not unit(torch.randn(2, 8)).any()
