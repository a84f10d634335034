"""A LoRA that was trained on the original, merged onto the defended model.

LoRAs are made for a public model and loaded into anything that descends from it. This one learned
benign pictures; the attack measures whether it brings the concept back by itself. Weights add up,
so a patch that is applied after the LoRA gives the same model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._fine_tuning import (
    Course,
    FolderPictures,
    benign_pictures,
    check_trainable,
    lesson_of,
    lora_changes,
    merged,
    recorded,
)
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.registry import takes
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
        settings = recorded(self.settings, self.folder)
        return AttackIdentity("lora-on-top", "weights", "white box", settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the LoRA is trained here, without the defense.

        Raises:
            SafegenError: the defense exchanged the network for one of another shape.
        """
        check_trainable(target, "lora-on-top")
        settings = self.settings
        course = Course(settings.steps, settings.batch, settings.learning_rate, settings.seed)
        with target.undefended():
            given = (self.folder, settings.benign, settings.seed, "lora-on-top")
            lesson = lesson_of(target, *benign_pictures(target, *given), settings.batch)
            changes = lora_changes(target, lesson, settings.rank, course, "lora-on-top")
        with merged(target, changes, "lora-on-top"):
            yield partial(self._strike, target)

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
