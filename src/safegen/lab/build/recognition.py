"""Detectors of weapons and classifiers of objects, outlines and places: CNNs, shipped as ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
OBJECT_BLOCKS = ((24, 2), (48, 1), (64, 2), (96, 1), (96, 2), (128, 1))
OUTLINE_BLOCKS = ((16, 2), (32, 2), (64, 1), (96, 2), (96, 1), (96, 1))
PLACE_BLOCKS = ((16, 2), (32, 2), (48, 2), (64, 1))
"""Widths and strides of the classifiers' layers."""


def _block(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


class Classifier(nn.Module):
    """Classifier of what a picture shows, such as the lab's objects.

    Input: float32 (N, 3, 64, 64) in [0, 1]. Output: scores (N, labels) in [0, 1].

    Args:
        labels: number of labels.
        blocks: width and stride of each layer.
        whole: whether a label belongs to the whole picture rather than to any part of it.
    """

    def __init__(
        self,
        labels: int = len(NAMES),
        blocks: tuple[tuple[int, int], ...] = OBJECT_BLOCKS,
        whole: bool = False,
    ) -> None:
        super().__init__()
        widths = [3, *(width for width, _ in blocks)]
        self.features = nn.Sequential(
            *(_block(widths[i], width, stride) for i, (width, stride) in enumerate(blocks))
        )
        self.head = nn.Linear(widths[-1], labels)
        self._whole = whole

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Scores before the sigmoid: the mean or the strongest response, per label."""
        features = self.features(images * 2 - 1).flatten(2).transpose(1, 2)  # (N, cells, width)
        responses: torch.Tensor = self.head(features)
        return responses.mean(dim=1) if self._whole else responses.amax(dim=1)

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
RENDERED, RENDERED_SHAPES = 6000, 1500
"""Number of scenes rendered by the autoencoder, so that its rendering is learned too."""


class HalfRendered:
    """Batches of pictures: half fresh ones, half rendered by the autoencoder.

    The rendered half is computed once and kept in ``cache``.

    Args:
        count: number of scenes.
        examples: function that makes pixels (N, 3, 64, 64) in [0, 1] and labels of scenes (N,).
        vae: autoencoder that renders.
        cache: file of the rendered pictures.
        rendered: largest number of them.
    """

    def __init__(
        self,
        count: int,
        examples: Callable[[torch.Tensor, torch.Generator], Examples],
        vae: AutoencoderKL,
        cache: Path,
        rendered: int = RENDERED,
    ) -> None:
        self._count, self._examples = count, examples
        generator = torch.Generator().manual_seed(0)
        self._rendered = examples(torch.arange(min(rendered, count)), generator)
        if not cache.exists():
            save_state(cache, {"pixels": _render(vae, self._rendered["pixels"], generator)})
        self._rendered["pixels"] = load_state(cache)["pixels"].float()

    def batch(self, count: int, generator: torch.Generator) -> Examples:
        """Draw pixels (N, 3, 64, 64) in [0, 1] and all that ``examples`` makes beside them."""
        half = count // 2
        fresh = torch.randint(self._count, (count - half,), generator=generator)
        rendered = torch.randint(len(self._rendered["pixels"]), (half,), generator=generator)
        examples = self._examples(fresh, generator)
        return {k: torch.cat([v, self._rendered[k][rendered]]) for k, v in examples.items()}


class SceneExamples:
    """Examples of scenes: pixels, labels (N, objects), heat (N, 6, 16, 16) and sides of boxes.

    Some unsafe scenes are censored and then count as safe.
    """

    def __init__(self, scenes: SceneArrays) -> None:
        self.scenes = scenes

    def __call__(self, indices: torch.Tensor, generator: torch.Generator) -> Examples:
        """Make the examples of scenes ``indices`` (N,)."""
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
        mean = vae.encode(part * 2 - 1).latent_dist.mean
        jitter = 0.1 * torch.randn(mean.shape, generator=generator)
        decoded = vae.decode(mean + jitter / vae.config.scaling_factor).sample
        parts.append((decoded / 2 + 0.5).clamp(0, 1).half())
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
    model: Classifier,
    data: HalfRendered,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
    labels: str = "labels",
    weathered: bool = True,
) -> Iterator[Progress]:
    """Train a classifier on the examples' ``labels``, which are independent; NaN is unknown."""

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        batch = data.batch(schedule.batch, generator)
        pixels = weather(batch["pixels"], generator) if weathered else batch["pixels"]
        known = ~batch[labels].isnan()
        logits, wanted = model.logits(pixels)[known], batch[labels][known]
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted) * 10

    return train(model, step_loss, schedule, checkpoint, seed)


def train_detector(
    model: Detector, data: HalfRendered, schedule: Schedule, checkpoint: Path, seed: int
) -> Iterator[Progress]:
    """Train with penalty-reduced focal loss on centres (CornerNet, eq. 1), smooth L1 on sides."""

    def step_loss(_: int, generator: torch.Generator) -> torch.Tensor:
        batch = data.batch(schedule.batch, generator)
        logits, sides = model.maps(weather(batch["pixels"], generator, DARKEST))
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
