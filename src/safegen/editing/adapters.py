"""Trained form of an edit: whole weights, or low-rank factors beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from safegen.errors import MissingExtraError, SafegenError
from safegen.models.moving import exchanged

ADAPTER = "safegen"


class Trained(Protocol):
    """Trained form of some of a network's weights; the originals stay untouched.

    Attributes:
        names: names of the changed weights.
        parameters: float32 parameters for the optimizer, by their names in the network.
    """

    names: list[str]
    parameters: dict[str, nn.Parameter]

    def lengths(self) -> dict[str, float]:
        """Norm of each parameter that a step's length is a share of."""

    def originals(self) -> dict[str, torch.Tensor]:
        """Values of some of the parameters, by name, at which the network is the original."""

    def differences(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Convert parameter values to weight differences, edited minus original, by name."""


def as_original(trained: Trained) -> AbstractContextManager[None]:
    """Make the network the frozen original in the block."""
    return exchanged(trained.parameters, trained.originals())


def trained_form(network: nn.Module, names: Sequence[str], rank: int | None, seed: int) -> Trained:
    """Freeze a network except some weights, or factors of a rank beside them."""
    network.requires_grad_(False)
    if rank is None:
        return WholeWeights(network, names)
    return LowRankFactors(network, names, rank, seed)


class WholeWeights:
    """The whole weights; see ``Trained``.

    Args:
        network: the network of the weights.
        names: names of the weights.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.names = list(names)
        found = dict(network.named_parameters())
        self.parameters = {name: found[name] for name in names}
        self._originals = {name: p.data for name, p in self.parameters.items()}
        for parameter in self.parameters.values():
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad_(True)

    def lengths(self) -> dict[str, float]:
        """See ``Trained.lengths``: a weight's own Frobenius norm.

        A bias has its layer's weight's: the size of the outputs it adds to, for inputs of size 1.
        """
        norms = {name: float(each.norm()) for name, each in self._originals.items()}
        return {
            name: norms.get(name.replace(".bias", ".weight"), norm) for name, norm in norms.items()
        }

    def originals(self) -> dict[str, torch.Tensor]:
        """See ``Trained.originals``."""
        return self._originals

    def differences(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``Trained.differences``."""
        return {
            name: (values[name] - original.float()).cpu()
            for name, original in self._originals.items()
        }


class LowRankFactors:
    """Factors A and B beside each weight matrix, as in PEFT; see ``Trained``.

    Biases are not trained, so the result is a LoRA in any layout.

    Args:
        network: the network of the weights.
        names: names of the weights; those that are no matrices are skipped.
        rank: rank of the factors.
        seed: seed of A; B starts at zero.

    Raises:
        MissingExtraError: PEFT is not installed.
        SafegenError: a matrix is too small for the rank, or the network already has adapters.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], rank: int, seed: int) -> None:
        if hasattr(network, "peft_config"):
            raise SafegenError(
                "the model has a LoRA loaded already; fuse it (fuse_lora) and unload it first"
            )
        found = dict(network.named_parameters())
        self.names = [name for name in names if found[name].dim() == 2]
        narrowest = min((min(found[name].shape), name) for name in self.names)
        if rank > narrowest[0]:
            raise SafegenError(
                f"a LoRA of rank {rank} is larger than the weights it stands for: {narrowest[1]} "
                f"has rank {narrowest[0]}; lower --lora-rank or leave it out"
            )
        self._network = network
        self.parameters = self._insert(rank, seed)

    def lengths(self) -> dict[str, float]:
        """See ``Trained.lengths``: A's own norm, and for B what moves BA by the weight's norm."""
        lengths = {}
        for name in self.names:
            adapter: Any = self._network.get_submodule(_module(name))
            a = self.parameters[_a(name)]
            lengths[_a(name)] = float(a.detach().norm())
            whole = float(adapter.base_layer.weight.float().norm())
            lengths[_b(name)] = whole / (lengths[_a(name)] / a.shape[0] ** 0.5)
        return lengths

    def originals(self) -> dict[str, torch.Tensor]:
        """See ``Trained.originals``: with B zero, A does not matter."""
        return {_b(name): torch.zeros_like(self.parameters[_b(name)]) for name in self.names}

    def differences(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``Trained.differences``."""
        return {name: (values[_b(name)] @ values[_a(name)]).cpu() for name in self.names}

    def _insert(self, rank: int, seed: int) -> dict[str, nn.Parameter]:
        """Insert the factors beside the layers and return them."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise MissingExtraError("editing as a LoRA", "lora") from error
        modules = [_module(name) for name in self.names]
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=modules)
        with torch.device("meta"):  # else PEFT draws from the global generator
            inject_adapter_in_model(config, self._network, ADAPTER)
        generator = torch.Generator().manual_seed(seed)
        parameters = {}
        for name in self.names:
            adapter: Any = self._network.get_submodule(_module(name))
            weight: torch.Tensor = adapter.base_layer.weight
            a, b = torch.empty(rank, weight.shape[1]), torch.zeros(weight.shape[0], rank)
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(a, -bound, bound, generator)
            for key, side, value in ((_a(name), "lora_A", a), (_b(name), "lora_B", b)):
                parameters[key] = nn.Parameter(value.to(weight.device))
                adapter.get_submodule(f"{side}.{ADAPTER}").weight = parameters[key]
        return parameters


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _a(name: str) -> str:
    return f"{_module(name)}.lora_A.{ADAPTER}.weight"


def _b(name: str) -> str:
    return f"{_module(name)}.lora_B.{ADAPTER}.weight"
