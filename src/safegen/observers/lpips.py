"""LPIPS (arXiv 1801.03924): perceptual distance of a picture from the original's.

Version 0.1 with AlexNet. Optional (``safegen[lpips]``): the learned layer weights come from the
package ``lpips``. AlexNet is built here, since that package takes it from torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safegen.errors import MissingExtraError, SafegenError
from safegen.models.anatomy import fingerprint
from safegen.models.loading import default_device
from safegen.observers import Observation, ObserverIdentity, Sight, register
from safegen.observers._common import pictures

ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
SMALLEST = 31
"""Shortest side, in pixels, that reaches AlexNet's last layer."""
_LAYERS = (1, 4, 7, 9, 11)
_CHANNELS = (64, 192, 384, 256, 256)


@register("lpips")
class LpipsObserver:
    """Record ``distance``, at least 0; equal pictures give 0.

    Args:
        alexnet: file with torchvision's AlexNet weights (default: download them once).
        local_files_only: never download them.
    """

    compares = True

    def __init__(self, alexnet: str | None = None, *, local_files_only: bool = False) -> None:
        package = find_spec("lpips")
        if package is None or not package.submodule_search_locations:
            raise MissingExtraError("the observer lpips", "lpips")
        linear = Path(package.submodule_search_locations[0]) / "weights" / "v0.1" / "alex.pth"
        weights = _read(Path(alexnet)) if alexnet else _downloaded(local_files_only)
        self._network = Lpips()
        try:
            self._network.load(weights, _read(linear))
        except (KeyError, RuntimeError) as error:
            raise SafegenError(f"{alexnet or linear}: has not the weights of AlexNet") from error
        self.identity = ObserverIdentity(
            "lpips",
            {"net": "alex", "version": "0.1", "weights_hash": fingerprint(self._network)},
        )
        self._device = default_device()
        self._network.to(self._device)

    @torch.no_grad()
    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``; all pictures have one size.

        Raises:
            SafegenError: see there; also if a picture is too small.
        """
        images = pictures(sights)
        originals = [sight.original for sight in sights]
        if any(each is None or each.shape != images[0].shape for each in originals):
            raise SafegenError("LPIPS compares with the original's picture of the same size")
        if min(images[0].shape[:2]) < SMALLEST:
            raise SafegenError(
                f"LPIPS needs pictures of {SMALLEST} pixels or more, not {images[0].shape[:2]}; "
                "leave it out"
            )
        one, other = (_pixels(each).to(self._device) for each in (images, originals))
        distances = self._network(one, other).cpu()
        return [Observation({"distance": float(distance)}) for distance in distances]


class Lpips(nn.Module):
    """Distance of two pictures.

    d = sum_l mean_hw sum_c w_lc (f_lc(x) - f_lc(y))^2, with f_l AlexNet's activations after its
    l-th ReLU, normalised to length 1 at every position (eq. 1 of the paper).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        self.linear = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in _CHANNELS)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def load(self, alexnet: dict[str, Tensor], linear: dict[str, Tensor]) -> None:
        """Load the weights of torchvision's AlexNet and of the package ``lpips``."""
        own = self.features.state_dict()
        self.features.load_state_dict({name: alexnet[f"features.{name}"] for name in own})
        for layer, weight in enumerate(self.linear):
            weight.copy_(linear[f"lin{layer}.model.1.weight"])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances (N,) of pictures (N, 3, H, W) in [-1, 1]."""
        distance = torch.zeros(len(one), device=one.device)
        for weight, x, y in zip(
            self.linear, self._activations(one), self._activations(other), strict=True
        ):
            difference = torch.square(_unit(x) - _unit(y))
            distance = distance + (weight * difference).sum(dim=1).mean(dim=(1, 2))
        return distance

    def _activations(self, pixels: Tensor) -> list[Tensor]:
        value, found = (pixels - self.shift) / self.scale, []
        for number, layer in enumerate(self.features):
            value = layer(value)
            if number in _LAYERS:
                found.append(value)
        return found


def _unit(activations: Tensor) -> Tensor:
    return activations / (activations.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _pixels(images: Sequence[np.ndarray | None]) -> Tensor:
    """Convert pictures to a tensor (N, 3, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise SafegenError(f"{file}: cannot be read as weights; get it again") from error
    return found


def _downloaded(offline: bool) -> dict[str, Any]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        if offline and not (folder / ALEXNET.rpartition("/")[2]).is_file():
            raise OSError("no download is allowed")
        found: dict[str, Any] = torch.hub.load_state_dict_from_url(
            ALEXNET, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise SafegenError(
            f"the observer lpips cannot download {ALEXNET} ({error}); put the file into {folder}"
        ) from error
    return found
