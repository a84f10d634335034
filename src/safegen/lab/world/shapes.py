"""Shapes: the world's objects in colours, softness and opacity that no drawing has.

An edit may take an object's colours and leave its outline. A judge of outlines is trained and
measured on these pictures, where the shape alone tells what an object is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d, grid_sample

from safegen.lab.world.backgrounds import BACKGROUNDS, paint_background
from safegen.lab.world.drawing import INK, SIZE, finish, new_canvas
from safegen.lab.world.objects import OBJECTS
from safegen.lab.world.weathering import blur, weather
from safegen.lab.world.world import (
    KINDS,
    SPLITS,
    Box,
    Mixture,
    Recipe,
    Split,
    paint_object,
    sample_recipe,
)
from safegen.triplets.censoring import METHODS, pixelate

KEY = (255, 0, 254)
"""Colour of bare canvas, which no object has."""
VISIBLE, SEEN_SHARE = 0.08, 0.7
"""Least contrast of a pixel to count as visible, and least share of such pixels of an object."""
SPOILED = 0.3
"""Share of the objects that are censored, smeared or melted, and then count as absent."""
BARE, PLAIN = 0.1, 0.1
"""Shares of pictures without objects and of places of one colour, which show no place."""
AT_ONCE = 64
"""Pictures composed at once, which bounds the memory."""
DRAWN = 0.25
"""Share of the objects that stay as they were drawn."""


@dataclass(frozen=True)
class Shapes:
    """Scenes in parts.

    Attributes:
        recipes: what each shows.
        grounds: the places, uint8 (N, 3, 64, 64).
        parts: colour, coverage and ink of two objects, uint8 (N, 2, 5, 64, 64); a missing second
            object covers nothing.
        boxes: boxes per scene, one per object.
    """

    recipes: list[Recipe]
    grounds: torch.Tensor
    parts: torch.Tensor
    boxes: list[list[Box]]

    def __len__(self) -> int:
        return len(self.recipes)


def draw_shapes(count: int, mixture: Mixture, split: Split, seed: int) -> Shapes:
    """Draw ``count`` scenes in parts; scene ``i`` depends on (mixture, split, seed, i) only."""
    recipes, boxes = [], []
    grounds = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    parts = np.zeros((count, 2, SIZE, SIZE, 5), np.uint8)
    for row in range(count):
        rng = np.random.default_rng([seed, SPLITS.index(split), row])
        kind = KINDS[int(rng.choice(len(KINDS), p=mixture.weights()))]
        recipe = sample_recipe(rng, kind, split)
        place = paint_background(recipe.background, rng.uniform(-1, 1), rng.uniform(0.94, 1.04))
        grounds[row] = np.asarray(finish(place))
        found = []
        for position, name in enumerate(recipe.names):
            parts[row, position], box = _part(name, position, len(recipe.names), rng)
            found.append(box)
        recipes.append(recipe)
        boxes.append(found)
    channels_first = torch.from_numpy(grounds).permute(0, 3, 1, 2).contiguous()
    return Shapes(
        recipes, channels_first, torch.from_numpy(parts).permute(0, 1, 4, 2, 3).contiguous(), boxes
    )


def _part(name: str, position: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, Box]:
    """Paint one object on bare canvas: uint8 (64, 64, 5), and its box."""
    canvas = new_canvas(KEY)
    box = paint_object(canvas, name, position, count, rng)
    painted = np.asarray(canvas)
    covered, inked = (painted != KEY).any(axis=-1), (painted == INK).all(axis=-1)
    share, ink = (_reduced(mask * np.uint8(255)) for mask in (covered, inked))
    sums = _reduced(painted * covered[..., None]).astype(np.float32)
    # Around the object lies its mean colour, which shows where its edge is softened.
    around = 255 * sums.sum((0, 1)) / share.sum()
    colour = np.where(share[..., None] > 0, 255 * sums / share[..., None].clip(1), around)
    return np.dstack([colour.clip(0, 255).round().astype(np.uint8), share, ink]), box


def _reduced(picture: np.ndarray) -> np.ndarray:
    return np.asarray(finish(Image.fromarray(picture)))


class Composed(NamedTuple):
    """Pictures made of shapes.

    Attributes:
        pixels: float32 (N, 3, 64, 64) in [0, 1].
        objects: float32 (N, objects): 1 if shown, 0 if not, NaN if hardly visible.
        places: float32 (N, places): 1 for the place shown; 0 everywhere if it has one colour.
    """

    pixels: torch.Tensor
    objects: torch.Tensor
    places: torch.Tensor


def compose(shapes: Shapes, rows: torch.Tensor, generator: torch.Generator) -> Composed:
    """Compose a picture of each of the rows (N,), in other colours, softness and opacity."""
    parts = [_compose(shapes, some, generator) for some in torch.split(rows, AT_ONCE)]
    return Composed(*(torch.cat(of) for of in zip(*parts, strict=True)))


def _compose(shapes: Shapes, rows: torch.Tensor, generator: torch.Generator) -> Composed:
    pixels, places = _grounds(shapes, rows, generator)
    objects = torch.zeros(len(rows), len(OBJECTS))
    bare = torch.rand(len(rows), generator=generator) < BARE
    for position in range(2):
        parts = shapes.parts[rows, position].float() / 255
        spoiled = torch.rand(len(rows), generator=generator) < SPOILED
        how = torch.randint(len(METHODS) + 2, (len(rows),), generator=generator)
        melted = spoiled & (how >= len(METHODS))
        colour, cover = _restyle(parts, melted, how == len(METHODS), generator)
        after = torch.lerp(pixels, colour, cover * ~bare[:, None, None, None])
        seen = _visible(pixels, after, parts)
        pixels = _censored(after, shapes, rows, position, how.where(spoiled & ~bare, -1), generator)
        for row, index in enumerate(rows.tolist()):
            names = shapes.recipes[index].names
            if position < len(names) and not spoiled[row] and not bare[row]:
                column = list(OBJECTS).index(names[position])
                objects[row, column] = 1.0 if seen[row] else torch.nan
    noise = 0.02 * torch.rand(len(rows), 1, 1, 1, generator=generator)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=generator)
    return Composed(pixels.clamp(0, 1), objects, places)


def _grounds(
    shapes: Shapes, rows: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weather the places of the rows, or replace them by one colour; with their labels."""
    count = len(rows)
    order = list(BACKGROUNDS)
    index = torch.tensor([order.index(shapes.recipes[row].background) for row in rows.tolist()])
    places = torch.nn.functional.one_hot(index, len(order)).float()
    worn = weather(shapes.grounds[rows].float() / 255, generator)
    plain = torch.rand(count, generator=generator) < PLAIN
    flat = torch.rand(count, 3, 1, 1, generator=generator)
    places[plain] = 0.0
    return torch.where(plain[:, None, None, None], flat, worn), places


def _restyle(
    parts: torch.Tensor, melted: torch.Tensor, torn: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give objects (N, 5, 64, 64) a colour (N, 3, 64, 64) and a coverage (N, 1, 64, 64).

    Those ``melted``, bool (N,), lose their shape: they are smeared, or ``torn`` into blobs.
    """
    count = len(parts)

    def chance(share: float) -> torch.Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) < share

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    drawn = chance(DRAWN)
    parts = torch.where(drawn, parts, _bent(parts, generator))
    own, alpha, ink = parts[:, :3], parts[:, 3:4], parts[:, 4:5]
    fill = torch.where(chance(0.25), own, _colours(count, generator))
    fill = torch.lerp(fill, own, uniform(0, 0.5))
    coloured = torch.rand(count, 3, 1, 1, generator=generator)
    line = torch.where(chance(0.6), torch.tensor(INK).view(3, 1, 1) / 255, coloured)
    only_line, broken = chance(0.15), uniform(0, 1) * _clouds(count, 6, generator)
    inked = ink * (1 - broken) * (chance(0.7) | only_line)
    cover = torch.where(only_line, (1.5 * inked).clamp(max=1), alpha)
    colour = torch.where(drawn, own, torch.lerp(fill, line, inked))
    faded = uniform(0.4, 1) * (1 - uniform(0, 0.6) * _clouds(count, 4, generator))
    soft = torch.where(chance(0.5), blur(cover), cover)
    soft = torch.where(chance(0.25), blur(blur(soft)), soft)
    cover = torch.where(drawn, alpha, soft * torch.where(only_line, faded.clamp(min=0.7), faded))
    smeared, mixed = (_widened(adaptive_avg_pool2d(layer, 5)) for layer in (alpha, colour))
    blobs = torch.sigmoid(20 * (_clouds(count, 7, generator) - 0.5)) * (2 * smeared).clamp(max=1)
    melted, torn = melted[:, None, None, None], torn[:, None, None, None]
    lost = torch.where(torn, blobs, smeared)
    return torch.where(melted, mixed, colour), torch.where(melted, lost, cover)


def _bent(parts: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Bend shapes a little, by at most some two pixels."""
    count = len(parts)
    small = 0.06 * (2 * torch.rand(count, 2, 5, 5, generator=generator) - 1)
    shift = _widened(small).permute(0, 2, 3, 1)
    line = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack((x, y), dim=-1) + shift
    return grid_sample(parts, grid, padding_mode="border", align_corners=True)


def _colours(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one colour, a gradient or blotches each: (N, 3, 64, 64)."""
    kinds = [torch.rand(count, 3, cells, cells, generator=generator) for cells in (1, 2, 7)]
    wide = torch.stack([_widened(points)[:, :, ::9, ::9] for points in kinds])
    chosen = wide[torch.randint(len(kinds), (count,), generator=generator), torch.arange(count)]
    return _widened(chosen)


def _clouds(count: int, cells: int, generator: torch.Generator) -> torch.Tensor:
    """Draw smooth weights (N, 1, 64, 64) in [0, 1]."""
    return _widened(torch.rand(count, 1, cells, cells, generator=generator))


def _widened(points: torch.Tensor) -> torch.Tensor:
    """Interpolate points (N, C, cells, cells) linearly to (N, C, 64, 64)."""
    cells = points.shape[-1]
    places = torch.linspace(0, cells - 1, SIZE)[:, None]
    hats = (1 - (places - torch.arange(cells)).abs()).clamp(min=0)  # (64, cells)
    return hats @ points @ hats.T


def _visible(before: torch.Tensor, after: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Tell which objects stand out from what is behind them, bool (N,)."""
    contrast = (after - before).abs().amax(dim=1) > VISIBLE
    shape = parts[:, 3] > 0.5
    ink = parts[:, 4] > 0.5
    shares = [
        (contrast & mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1) for mask in (shape, ink)
    ]
    return torch.maximum(*shares) >= SEEN_SHARE


def _censored(
    pixels: torch.Tensor,
    shapes: Shapes,
    rows: torch.Tensor,
    position: int,
    how: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Censor the object at ``position`` by method number ``how`` (N,); other numbers spare it."""
    blocks = torch.randint(8, 15, (len(rows),), generator=generator).tolist()
    methods = list(METHODS)
    for row, (index, number) in enumerate(zip(rows.tolist(), how.tolist(), strict=True)):
        boxes = shapes.boxes[index][position : position + 1]
        if not boxes or not 0 <= number < len(methods):
            continue
        (image,) = as_images(pixels[row : row + 1].clamp(0, 1))
        if methods[number] == "pixelate":
            image = pixelate(image, boxes, blocks[row])
        else:
            image = METHODS[methods[number]](image, boxes)
        pixels[row] = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    return pixels


def as_images(pixels: torch.Tensor) -> list[np.ndarray]:
    """Convert pictures (N, 3, H, W) in [0, 1] to uint8 (H, W, 3) each."""
    return list(pixels.mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy())
