"""Ordinary fine-tuning of a denoiser, whole or as a LoRA, for attacks that change weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from safegen.attacks._gradients import frozen
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.models.anatomy import denoiser_of, model_size
from safegen.models.conditioning import TextCondition
from safegen.models.factors import low_rank
from safegen.models.families import family_of
from safegen.models.moving import all_trained, denoiser_put_back
from safegen.models.prediction import (
    add_noise,
    output_for,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)
from safegen.profiles import profile_for
from safegen.seeds import sample_seed
from safegen.triplets.pictures import image_files, read_picture


@dataclass(frozen=True)
class FolderPictures:
    """Image files of a folder with captions: ``cat.txt`` holds that of ``cat.png``.

    A picture without a caption file has the empty caption.

    Raises:
        SafegenError: the folder is missing or holds no picture.
    """

    folder: Path

    @cached_property
    def files(self) -> list[Path]:
        """Picture files, sorted by name."""
        return image_files(self.folder)

    @cached_property
    def captions(self) -> list[str]:
        """Caption of each picture."""
        return [
            text.read_text(encoding="utf-8").strip() if text.is_file() else ""
            for text in (file.with_suffix(".txt") for file in self.files)
        ]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Content digest of the data, recorded with the result."""
        told = [file_hash(file) for file in self.files] + self.captions
        return {"count": len(self.files), "hash": sha256("\0".join(told).encode()).hexdigest()}

    def images(self, size: int) -> list[np.ndarray]:
        """Load all pictures, cropped and scaled to squares, uint8 (size, size, 3)."""
        pictures = (Image.fromarray(read_picture(file, str(file))) for file in self.files)
        fitted = (ImageOps.fit(each, (size, size), Image.Resampling.LANCZOS) for each in pictures)
        return [np.asarray(each) for each in fitted]


def recorded(settings: Any, folder: FolderPictures | None) -> dict[str, Any]:
    """Settings as results record them, with the identity of a folder's pictures."""
    return asdict(settings) | ({} if folder is None else {"pictures": folder.identity})


@dataclass(frozen=True)
class Lesson:
    """Training data: clean latents (N, C, H, W) and conditions of N captions."""

    latents: torch.Tensor
    texts: TextCondition


def benign_pictures(
    target: Target, folder: FolderPictures | None, count: int, seed: int, attack: str
) -> tuple[Sequence[np.ndarray], Sequence[str]]:
    """Load pictures and captions of a folder, or those that the model's profile has.

    Raises:
        SafegenError: there is no folder, and the profile has none.
    """
    if folder is not None:
        return folder.images(model_size(target.pipeline)), folder.captions
    profile = profile_for(target.pipeline)
    if profile is None or profile.benign is None:
        raise SafegenError(
            f"{attack}: benign pictures of this model are not known; name a folder of them, "
            f"each beside its caption (cat.png, cat.txt): {attack}:FOLDER"
        )
    return profile.benign(count, seed)


def lesson_of(
    target: Target, images: Sequence[np.ndarray], captions: Sequence[str], batch: int
) -> Lesson:
    """Encode pictures and captions, a batch at a time."""
    split = batches(len(images), batch)
    latents = [target.encode(images[rows]) for rows in split]
    texts = [target.embed(captions[rows]) for rows in split]
    return Lesson(torch.cat(latents), TextCondition.cat(texts))


def check_trainable(target: Target, attack: str) -> None:
    """Refuse a denoiser that cannot be trained.

    Raises:
        SafegenError: the pipeline is of no known family, or not in fp32.
    """
    family_of(target.pipeline)
    if next(denoiser_of(target.pipeline).parameters()).dtype != torch.float32:
        raise SafegenError(f"{attack} trains in fp32; load the model with --precision fp32")


@contextmanager
def trained_parameters(
    pipeline: Any, rank: int | None, seed: int
) -> Iterator[list[torch.nn.Parameter]]:
    """Let all weights of the denoiser train in the block, or factors of a rank beside them."""
    denoiser = denoiser_of(pipeline)
    if rank is None:
        with all_trained(denoiser):
            yield list(denoiser.parameters())
        return
    with frozen(pipeline), low_rank(denoiser, rank, seed) as factors:
        yield factors.parameters


@dataclass(frozen=True)
class Course:
    """Course of a training: steps of AdamW, pictures per step, learning rate, and seed."""

    steps: int
    batch: int
    learning_rate: float
    seed: int


def lora_changes(
    target: Target, lesson: Lesson, rank: int, course: Course, attack: str
) -> dict[str, torch.Tensor]:
    """Train a LoRA on the target as it is, and return what it adds to the weights, by name."""
    pipeline, seed = target.pipeline, sample_seed(attack, base=course.seed)
    with frozen(pipeline), low_rank(denoiser_of(pipeline), rank, course.seed) as factors:
        rest = (course.steps, course.batch, course.learning_rate, seed)
        for _ in fine_tune(target, factors.parameters, lesson, *rest):
            pass
        return factors.changes()


@contextmanager
def merged(target: Target, changes: Mapping[str, torch.Tensor], attack: str) -> Iterator[None]:
    """Add changes to the target's weights in the block.

    Raises:
        SafegenError: the defense exchanged the network for one of another shape.
    """
    with denoiser_put_back(target.pipeline) as denoiser:
        weights = dict(denoiser.named_parameters())
        with torch.no_grad():
            for name, change in changes.items():
                if name not in weights or weights[name].shape != change.shape:
                    raise SafegenError(f"{attack}: {name} has no such weight to change")
                weights[name].add_(change)
        yield


def fine_tune(
    target: Target,
    parameters: Sequence[torch.nn.Parameter],
    lesson: Lesson,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> Iterator[int]:
    """Train parameters of the target's denoiser; yields the number of steps done, from 0.

    Raises:
        SafegenError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    yield 0
    losses = (training_loss(target, lesson, batch, generator) for _ in range(steps))
    yield from descend(parameters, losses, learning_rate, "fine-tuning")


def descend(
    parameters: Sequence[torch.nn.Parameter],
    losses: Iterable[torch.Tensor],
    learning_rate: float,
    training: str,
) -> Iterator[int]:
    """Step parameters along each loss's gradient with AdamW; yields the number of steps done.

    Args:
        parameters: what is trained.
        losses: losses, each computed after the step before it.
        learning_rate: constant learning rate.
        training: name of the training in messages.

    Raises:
        SafegenError: a loss is not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    for step, loss in enumerate(losses):
        if not torch.isfinite(loss):
            raise SafegenError(
                f"{training}: the loss is not finite in step {step + 1}; take a lower learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield step + 1


def training_loss(
    target: Target, lesson: Lesson, batch: int, generator: torch.Generator
) -> torch.Tensor:
    """Mean squared error of the model's own output, noise or velocity."""
    scheduler, device = target.pipeline.scheduler, lesson.latents.device
    rows = torch.randint(len(lesson.latents), (batch,), generator=generator)
    times = timesteps_at(scheduler, torch.rand(batch, generator=generator)).to(device)
    z_0 = lesson.latents[rows]
    noise = torch.randn(z_0.shape, generator=generator).to(device)
    kind, (a, s) = prediction_of(scheduler), signal_and_noise(scheduler, times)
    z_t = add_noise(z_0, noise, a, s)
    seen = target.clean(z_t, times, lesson.texts[rows])
    error = output_for(seen, z_t, a, s, kind) - output_for(z_0, z_t, a, s, kind)
    return error.square().mean()


def batches(count: int, size: int) -> list[slice]:
    """Split ``count`` items into slices of at most ``size``."""
    return [slice(start, start + size) for start in range(0, count, size)]
