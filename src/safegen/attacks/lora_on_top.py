"""A LoRA that was trained on the original, merged onto the defended model.

LoRAs are made for a public model and loaded into anything that descends from it. This one learned
benign pictures; the attack measures whether it brings the concept back by itself. Weights add up,
so a patch that is applied after the LoRA gives the same model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._fine_tuning import (
    FolderPictures,
    benign_pictures,
    check_trainable,
    fine_tune,
    lesson_of,
)
from safegen.attacks._gradients import frozen
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.anatomy import denoiser_of
from safegen.models.factors import low_rank
from safegen.models.moving import denoiser_put_back
from safegen.registry import takes
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class LoraOnTopSettings(Settings, of="lora-on-top"):
    """Settings of the LoRA (defaults: diffusers' example of a LoRA, in 200 steps)."""

    rank: int = setting(4, "Rank of the factors.", minimum=1)
    steps: int = setting(200, "Steps of AdamW.", minimum=1)
    learning_rate: float = setting(1e-4, "Constant learning rate.", above=0)
    batch: int = setting(4, "Pictures per step.", minimum=1)
    benign: int = setting(
        100, "Benign pictures from the model's profile; a folder is used whole.", minimum=1
    )
    seed: int = setting(
        0, "Seed of the pictures, the factors and every random draw.", minimum=0, maximum=MAX_SEED
    )


@dataclass(frozen=True)
class LoraOnTop(Attack):
    """Merge a benign LoRA onto the defended model, then draw the goals."""

    settings: LoraOnTopSettings
    folder: FolderPictures | None = None

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        settings = asdict(self.settings)
        if self.folder is not None:
            settings["pictures"] = self.folder.identity
        return AttackIdentity("lora-on-top", "weights", "white box", settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the LoRA is trained here, without the defense.

        Raises:
            SafegenError: the defense exchanged the network for one of another shape.
        """
        check_trainable(target, "lora-on-top")
        with target.undefended():
            changes = self._trained(target)
        with denoiser_put_back(target.pipeline) as denoiser:
            weights = dict(denoiser.named_parameters())
            with torch.no_grad():
                for name, change in changes.items():
                    if name not in weights or weights[name].shape != change.shape:
                        raise SafegenError(f"lora-on-top: {name} has no such weight to change")
                    weights[name].add_(change)
            yield partial(self._strike, target)

    def _trained(self, target: Target) -> dict[str, torch.Tensor]:
        settings, pipeline = self.settings, target.pipeline
        given = (self.folder, settings.benign, settings.seed, "lora-on-top")
        lesson = lesson_of(target, *benign_pictures(target, *given), settings.batch)
        seed = sample_seed("lora-on-top", base=settings.seed)
        with (
            frozen(pipeline),
            low_rank(denoiser_of(pipeline), settings.rank, settings.seed) as factors,
        ):
            rest = (settings.steps, settings.batch, settings.learning_rate, seed)
            for _ in fine_tune(target, factors.parameters, lesson, *rest):
                pass
            return factors.changes()

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        passes = 3 * self.settings.steps * self.settings.batch

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            return [Drawn(each, passes=passes, shared=passes) for each in target.draw(tasks)]

        return search(target, tasks, draw)


@register("lora-on-top")
@takes(LoraOnTopSettings)
def lora_on_top(folder: str = "", **options: Any) -> LoraOnTop:
    """LoRA of benign pictures, trained on the original; ``lora-on-top:FOLDER`` names them."""
    pictures = FolderPictures(Path(folder)) if folder else None
    return LoraOnTop(LoraOnTopSettings(**options), pictures)
