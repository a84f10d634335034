"""What is moved for a while is put back to the bit, whatever happens meanwhile."""

from __future__ import annotations

import pytest
import torch

from safegen.models.moving import all_trained, put_back


def test_weights_are_put_back_after_an_error() -> None:
    network = torch.nn.Linear(3, 2).requires_grad_(False)
    kept = network.weight.clone()
    with pytest.raises(RuntimeError), put_back(network):
        network.weight.mul_(1.1).reshape(7)  # which they cannot be
    assert torch.equal(network.weight, kept)
    with put_back(network) as before:
        network.weight.mul_(1.1)
        assert torch.equal(before["weight"], kept)


def test_all_are_trained_for_a_while() -> None:
    network = torch.nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    with all_trained(network):
        network(torch.ones(1, 3)).sum().backward()
        assert network.bias.grad is not None
    assert (network.weight.requires_grad, network.bias.requires_grad) == (True, False)
    assert network.weight.grad is None
    assert network.bias.grad is None
