"""Detector of weapons and classifier of objects: two small CNNs, shipped as ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from safegen.checkpoints import load_state, save_state
from safegen.lab.build.scenes import SceneArrays
from safegen.lab.build.training import Progress, Schedule, train
from safegen.lab.world.objects import OBJECTS, UNSAFE_NAMES
from safegen.lab.world.weathering import weather
from safegen.triplets.censoring import pixelate

GRID = 16
"""Cells per side of the detector's grid, of 4 pixels each."""
DARKEST = 0.6
"""Largest share of light removed from the detector's training pictures; without it the detector
misses black bombs at night."""
CENSORED_SHARE = 0.4
"""Share of unsafe training scenes that are censored, and then count as safe."""
NAMES = tuple(OBJECTS)


def _block(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class Classifier(nn.Module):
    """Classifier of the lab's objects that a picture shows.

    Input: float32 (N, 3, 64, 64) in [0, 1]. Output: scores (N, objects) in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 24, 2), _block(24, 48, 1), _block(48, 64, 2), _block(64, 96, 1),
            _block(96, 96, 2), _block(96, 128, 1),
        )  # fmt: skip
        self.head = nn.Linear(128, len(NAMES))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Scores before the sigmoid: the strongest response anywhere, per object."""
        features = self.features(images * 2 - 1).flatten(2).transpose(1, 2)  # (N, 64, 128)
        logits: torch.Tensor = self.head(features).amax(dim=1)
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(images).sigmoid()


class Detector(nn.Module):
    """Detector of weapons: a heat map of centres per class, and box sides (CenterNet, 1904.07850).

    Input: float32 (N, 3, 64, 64) in [0, 1]. Output: scores (N, 6) in [0, 1], the strongest
    centre of each class, and its boxes (N, 6, 4) as (left, top, right, bottom) in pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 24, 2), _block(24, 48, 1), _block(48, 64, 2), _block(64, 96, 1),
            _block(96, 96, 1), nn.Conv2d(96, 96, 3, padding=2, dilation=2), nn.ReLU(inplace=True),
            nn.Conv2d(96, 96, 3, padding=4, dilation=4), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.heat = nn.Conv2d(96, len(UNSAFE_NAMES), 1)
        self.sides = nn.Conv2d(96, 4, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # type: ignore[arg-type]

    def maps(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Heat logits (N, 6, 16, 16) and distances from cell centre to box sides, in pixels."""
        features = self.features(images * 2 - 1)
        return self.heat(features), nn.functional.softplus(self.sides(features)) * 8

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heat, sides = self.maps(images)
        scores, cells = heat.flatten(2).max(dim=2)  # (N, 6)
        sides = sides.flatten(2).transpose(1, 2)  # (N, 256, 4)
        chosen = torch.gather(sides, 1, cells.unsqueeze(2).expand(-1, -1, 4))
        x = (cells % GRID).float() * 4 + 2
        y = (cells // GRID).float() * 4 + 2
        left, top, right, bottom = chosen.unbind(dim=2)
        boxes = torch.stack((x - left, y - top, x + right, y + bottom), dim=2)
        return scores.sigmoid(), boxes.clamp(0, 64)


Examples = dict[str, torch.Tensor]
RENDERED = 6000
"""Number of scenes rendered by the autoencoder, so that its rendering is learned too."""


class RecognitionData:
    """Batches for both networks: half fresh scenes, half scenes rendered by the autoencoder.

    Some unsafe scenes are censored and then count as safe. The rendered half is computed
    once and kept in ``cache``.
    """

    def __init__(self, scenes: SceneArrays, vae: AutoencoderKL, cache: Path) -> None:
        self.scenes = scenes
        generator = torch.Generator().manual_seed(0)
        self._rendered = self._examples(torch.arange(min(RENDERED, len(scenes))), generator)
        if not cache.exists():
            save_state(cache, {"pixels": _render(vae, self._rendered["pixels"], generator)})
        self._rendered["pixels"] = load_state(cache)["pixels"].float()

    def batch(self, count: int, generator: torch.Generator, darkest: float = 0.0) -> Examples:
        """Draw pixels (N, 3, 64, 64) in [0, 1], labels (N, objects), heat (N, 6, 16, 16), sides."""
        half = count // 2
        fresh = torch.randint(len(self.scenes), (count - half,), generator=generator)
        rendered = torch.randint(len(self._rendered["pixels"]), (half,), generator=generator)
        examples = self._examples(fresh, generator)
        batch = {k: torch.cat([v, self._rendered[k][rendered]]) for k, v in examples.items()}
        return batch | {"pixels": weather(batch["pixels"], generator, darkest)}

    def _examples(self, indices: torch.Tensor, generator: torch.Generator) -> Examples:
        count = len(indices)
        images = np.array(self.scenes.images[indices.numpy()])
        labels = torch.from_numpy(self.scenes.labels[indices.numpy()])
        heat = torch.zeros(count, len(UNSAFE_NAMES), GRID, GRID)
        sides = torch.full((count, 4, GRID, GRID), torch.nan)
        chances = torch.rand(count, generator=generator)
        blocks = torch.randint(4, 13, (count,), generator=generator)
        for row, index in enumerate(indices.tolist()):
            for name, box in zip(self.scenes.names[index], self.scenes.boxes[index], strict=True):
                if name not in UNSAFE_NAMES:
                    continue
                if chances[row] < CENSORED_SHARE:
                    corners = (box[0], box[1], box[2], box[3])
                    images[row] = pixelate(images[row], [corners], block=int(blocks[row]))
                    labels[row, NAMES.index(name)] = 0.0
                else:
                    _mark(heat[row, UNSAFE_NAMES.index(name)], sides[row], box)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
        return {"pixels": pixels, "labels": labels, "heat": heat, "sides": sides}


@torch.no_grad()
def _render(vae: AutoencoderKL, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Encode pictures, jitter them by a tenth of a standard deviation, and decode them."""
    parts = []
    for part in torch.split(pixels, 64):
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(part * 2 - 1).latent_dist.mean
            jitter = 0.1 * torch.randn(mean.shape, generator=generator)
            decoded = vae.decode(mean + jitter / vae.config.scaling_factor).sample
        parts.append((decoded.float() / 2 + 0.5).clamp(0, 1).half())
    return torch.cat(parts)


def _mark(heat: torch.Tensor, sides: torch.Tensor, box: list[float]) -> None:
    """Put a flat-topped Gaussian at the box's centre cell, and the sides' distances around it."""
    left, top, right, bottom = box
    column, row = int((left + right) / 8), int((top + bottom) / 8)
    ys, xs = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    distance = (xs - column).pow(2) + (ys - row).pow(2)
    # The cells beside the centre count in full too: the exact one cannot be seen to the pixel.
    torch.maximum(heat, torch.exp(-(distance - 1).clamp(min=0) / 2.0), out=heat)
    near = distance <= 2
    x, y = xs * 4 + 2.0, ys * 4 + 2.0
    target = torch.stack((x - left, y - top, right - x, bottom - y))
    sides[:, near] = target[:, near].clamp(min=0.1)


def train_classifier(
    model: Classifier, data: RecognitionData, schedule: Schedule, checkpoint: Path, seed: int
) -> Iterator[Progress]:
    """Train the object classifier on multiple labels."""

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        batch = data.batch(64, generator)
        logits = model.logits(batch["pixels"])
        return nn.functional.binary_cross_entropy_with_logits(logits, batch["labels"]) * 10

    return train(model, step_loss, schedule, checkpoint, seed)


def train_detector(
    model: Detector, data: RecognitionData, schedule: Schedule, checkpoint: Path, seed: int
) -> Iterator[Progress]:
    """Train with penalty-reduced focal loss on centres (CornerNet, eq. 1), smooth L1 on sides."""

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        batch = data.batch(64, generator, DARKEST)
        logits, sides = model.maps(batch["pixels"])
        probability, target = logits.sigmoid(), batch["heat"]
        peak = target == 1
        positive = (1 - probability).pow(2) * nn.functional.logsigmoid(logits) * peak
        negative = (
            (1 - target).pow(4) * probability.pow(2) * nn.functional.logsigmoid(-logits) * ~peak
        )
        focal = -(positive.sum() + negative.sum()) / peak.sum().clamp(min=1)
        known = ~batch["sides"].isnan()
        side = nn.functional.smooth_l1_loss(sides[known], batch["sides"][known], beta=1.0)
        return focal + 0.2 * side

    return train(model, step_loss, schedule, checkpoint, seed)


def export_onnx(model: nn.Module, path: Path, outputs: list[str]) -> None:
    """Write the network as ONNX with a free batch size."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 64, 64),),
        str(path),
        input_names=["images"],
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in ["images", *outputs]},
        opset_version=17,
        dynamo=False,
    )
