"""Inpainting: the unsafe part of a picture is masked, and drawn again in its place.

The attacker gives the surroundings and the text, and the model puts the concept back. Everything
outside the mask is set to the noised picture after each step, as in RePaint (arXiv 2201.09865,
equation 8, without its resampling) and in diffusers' inpainting with an ordinary model. The probe
of context in arXiv 2505.17013 does the same. The mask is where the attacker's judge finds the
concept, or the middle of the picture if it tells no place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._from_pictures import draw_by
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.detectors import Box, Detection
from safegen.models.families import family_if_known
from safegen.models.from_pictures import noise_like, noised_at
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class InpaintSettings(Settings, of="inpaint"):
    """Settings of inpainting."""

    margin: float = setting(
        0.1, "Share of a region's size by which the mask is wider on each side.", minimum=0
    )
    middle: float = setting(
        0.5, "Side of the mask without a region, as a share of the picture's.", above=0, maximum=1
    )
    seed: int = setting(0, "Seed of the noise.", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Inpaint(Attack):
    """Draw each goal into the surroundings of its unsafe picture."""

    settings: InpaintSettings

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        return AttackIdentity("inpaint", "image", "black box", asdict(self.settings))

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; nothing is learned."""
        yield partial(self._strike, target)

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        references = target.unsafe_pictures(tasks)
        clean = target.encode(references)
        found = target.detector.detect(references)
        masks = torch.stack(
            [
                mask_of(seen, image.shape[:2], clean.shape[2:], self.settings)
                for seen, image in zip(found, references, strict=True)
            ]
        ).to(clean)
        noise = noise_like(clean, [task_generator(task, self.settings.seed) for task in tasks])

        packed = family_if_known(target.pipeline).packed

        def keep(scheduler: Any, rows: list[int]) -> None:
            keep_outside(scheduler, clean[rows], noise[rows], masks[rows], packed)

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = draw_by(target, tasks, noise, target.sampling.sampler, keep)
            facts = zip(samples, masks, strict=True)
            return [Drawn(sample, details={"masked": float(mask.mean())}) for sample, mask in facts]

        return search(target, tasks, draw)


def mask_of(
    found: Sequence[Detection],
    picture: tuple[int, ...],
    latent: tuple[int, ...],
    settings: InpaintSettings,
) -> torch.Tensor:
    """Make a mask (1, h, w), 1 where something is drawn anew.

    Args:
        found: detections in the picture; those without a box tell no place.
        picture: height and width of the picture.
        latent: height and width of its latent, h and w.
        settings: margin and middle.
    """
    mask = torch.zeros(1, *latent)
    height, width = picture
    inset = (1 - settings.middle) / 2
    middle = (inset * width, inset * height, (1 - inset) * width, (1 - inset) * height)
    regions = [_widened(each.box, settings.margin) for each in found if each.box is not None]
    across, down = latent[1] / width, latent[0] / height
    for left, top, right, bottom in regions or [middle]:
        rows = slice(max(0, math.floor(top * down)), math.ceil(bottom * down))
        columns = slice(max(0, math.floor(left * across)), math.ceil(right * across))
        mask[:, rows, columns] = 1
    return mask


def _widened(box: Box, margin: float) -> Box:
    left, top, right, bottom = box
    across, down = margin * (right - left), margin * (bottom - top)
    return left - across, top - down, right + across, bottom + down


def keep_outside(
    scheduler: Any,
    clean: torch.Tensor,
    noise: torch.Tensor,
    mask: torch.Tensor,
    packed: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Let a scheduler set all outside the mask to the noised picture after each step.

    Args:
        scheduler: scheduler of ``last_steps``, for one call of the pipeline.
        clean: clean latents of the pictures (B, C, H, W).
        noise: noise of this shape, the same at each level.
        mask: 1 where the model draws (B, 1, H, W).
        packed: turns latents into the pipeline's layout.
    """
    inside, step, done = packed(mask.expand_as(clean)), scheduler.step, 0

    def known() -> torch.Tensor:
        times = scheduler.timesteps[done : done + 1]
        return clean if len(times) == 0 else noised_at(scheduler, clean, noise, times)

    def kept(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        result = step(*args, **kwargs)
        done += 1
        whole = isinstance(result, tuple)
        drawn = result[0] if whole else result.prev_sample
        outside = packed(known()).to(drawn.dtype)
        mixed = torch.where(inside > 0, drawn, outside)
        if whole:
            return (mixed, *result[1:])
        result.prev_sample = mixed
        return result

    scheduler.step = kept


@register("inpaint")
@takes(InpaintSettings)
def inpaint(**options: Any) -> Inpaint:
    """Unsafe picture with the concept's region masked, which the model fills."""
    return Inpaint(InpaintSettings(**options))
