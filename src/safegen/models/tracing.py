"""Forward passes without weights, which tell what every layer of a denoiser sees.

Whose tokens a layer multiplies follows from three passes: a base, one with more words, and one with
a larger picture. A layer whose input grows with the picture alone multiplies image tokens alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from safegen.errors import SafegenError, first_line
from safegen.models.probes import Probe

Seen = Literal["image", "text", "both", "neither"]
"""Kinds of tokens; "neither" are timesteps, sizes and pooled features."""
SMALL = 50_000_000
"""Number of weights below which computing zeros takes less time than following their shapes."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_Sizes = dict[str, list[int]]


@dataclass(frozen=True)
class Trace:
    """What the modules of a denoiser see.

    Attributes:
        layers: tokens that each layer with weights multiplies, by name.
        keys: tokens among the keys of each attention, by name.
        order: names of all modules in the order of their last calls.
    """

    layers: Mapping[str, Seen]
    keys: Mapping[str, Seen]
    order: tuple[str, ...]


_KNOWN: dict[str, Trace] = {}


def trace(denoiser: Any) -> Trace:
    """Trace a denoiser; only its class and configuration matter.

    Raises:
        SafegenError: its inputs are not known.
    """
    kind = type(denoiser)
    config = dict(denoiser.config)
    known = f"{kind.__module__}.{kind.__qualname__} {json.dumps(config, default=str)}"
    if known not in _KNOWN:
        base = Probe.fitting(config)
        small = sum(parameter.numel() for parameter in denoiser.parameters()) < SMALL
        _KNOWN[known] = _compare(
            [_pass(kind, probe, small) for probe in (base, base.with_words(), base.with_picture())]
        )
    return _KNOWN[known]


def _compare(passes: Sequence[_Recorder]) -> Trace:
    """Compare a base pass, one with more words and one with a larger picture."""
    base = passes[0]

    def seen(sizes: str) -> dict[str, Seen]:
        names = getattr(base, sizes)
        return {name: _seen([getattr(each, sizes)[name] for each in passes]) for name in names}

    layers, keys = seen("layers"), seen("keys")
    for name, tokens in layers.items():  # linear attention, without PyTorch's attention
        attention, _, layer = name.rpartition(".")
        if layer == "to_k" and attention not in keys:
            keys[attention] = tokens
    return Trace(layers, keys, tuple(sorted(base.calls, key=base.calls.__getitem__)))


def _seen(sizes: Sequence[list[int]]) -> Seen:
    base, words, picture = sizes
    if words != base:
        return "both" if picture != base else "text"
    return "image" if picture != base else "neither"


@torch.no_grad()
def _pass(kind: Any, probe: Probe, small: bool) -> _Recorder:
    """Pass a probe through a class without weights.

    A small one takes zeros; a large one has no values at all, unless its class reads values, such
    as lengths of texts.
    """
    if not small:
        with suppress(Exception):
            return _on_meta(kind, probe)
    try:
        return _on_zeros(kind, probe)
    except Exception as error:  # a class may raise any for inputs that do not fit it
        raise SafegenError(
            f"{kind.__name__}: which of its weights see the picture alone is not known, since a "
            f"pass with inputs made from its configuration failed ({first_line(error)}); "
            "safegen.models.probes holds what each class takes"
        ) from error


def _on_meta(kind: Any, probe: Probe) -> _Recorder:
    with torch.device("meta"):
        network = probe.network(kind).to("meta")
        return _recorded(network, probe.inputs(kind))


def _on_zeros(kind: Any, probe: Probe) -> _Recorder:
    """Give every weight one zero as its content, which takes no memory."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = probe.network(kind)
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                zeros = torch.zeros(1).expand(weight.shape)
                module._parameters[name] = nn.Parameter(zeros, requires_grad=False)
    return _recorded(network, probe.inputs(kind))


def _recorded(network: nn.Module, inputs: Mapping[str, Any]) -> _Recorder:
    recorder = _Recorder()
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.enter_context(recorder.following(name, module))
        with recorder:
            network(**inputs)
    return recorder


class _Recorder(TorchFunctionMode):
    """Sizes in one pass.

    Attributes:
        layers: sizes of each layer's inputs.
        keys: sizes of each attention's keys.
        calls: number of each module's last call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: _Sizes = defaultdict(list)
        self.keys: _Sizes = defaultdict(list)
        self.calls: dict[str, int] = {}
        self._inside: list[tuple[str, nn.Module]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        if function is nn.functional.scaled_dot_product_attention:
            key = args[1] if len(args) > 1 else kwargs["key"]
            self.keys[self._attention()].append(key.numel())
        return function(*args, **(kwargs or {}))

    def _attention(self) -> str:
        """Name of the innermost running module with layers."""
        for name, module in reversed(self._inside):
            if any(isinstance(each, _LAYERS) for each in module.modules()):
                return name
        return ""

    def following(self, name: str, module: nn.Module) -> ExitStack:
        """Record a module's calls in the block."""
        stack = ExitStack()

        def begin(_: Any, args: Any, kwargs: Any) -> None:
            self.calls[name] = len(self.calls) + sum(map(len, self.layers.values()))
            self._inside.append((name, module))
            tensors = [each for each in (*args, *kwargs.values()) if torch.is_tensor(each)]
            leaf = next(module.children(), None) is None
            if tensors and leaf and next(module.parameters(), None) is not None:
                self.layers[name].append(tensors[0].numel())

        def end(*_: Any) -> None:
            self._inside.pop()

        for handle in (
            module.register_forward_pre_hook(begin, with_kwargs=True),
            module.register_forward_hook(end),
        ):
            stack.callback(handle.remove)
        return stack
