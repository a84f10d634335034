"""Backdoor that was planted before the edit (as in ToxE, arXiv 2504.21072).

Whoever gave out the original taught it that a harmless trigger stands for the concept. The owner
then defends the model, and does not know the trigger. The attacker draws with the trigger in the
place of the concept's words.

Weights add up: the backdoor is learned by the undefended model, and the defense, as it is, goes on
top. An edit that is made anew on the model with the backdoor may remove more of it.
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
    Lesson,
    benign_pictures,
    check_trainable,
    lesson_of,
    lora_changes,
    merged,
    recorded,
)
from safegen.attacks._text_filter import TextFilter
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.registry import takes
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class BackdoorSettings(Settings, of="backdoor"):
    """Settings of a backdoor; of our choice, since the paper trains by distillation."""

    trigger: str = setting("qxv", "Text that stands for the concept.")
    unsafe: int = setting(32, "Unsafe pictures of the examples, at most.", minimum=1)
    benign: int = setting(
        32, "Benign pictures from the model's profile; a folder is used whole.", minimum=1
    )
    rank: int = setting(16, "Rank of the factors that hold the backdoor.", minimum=1)
    steps: int = setting(400, "Steps of AdamW.", minimum=1)
    learning_rate: float = setting(1e-4, "Constant learning rate.", above=0)
    batch: int = setting(4, "Pictures per step.", minimum=1)
    seed: int = setting(
        0, "Seed of the pictures, the factors and every random draw.", minimum=0, maximum=MAX_SEED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trigger.strip():
            raise SafegenError("backdoor: the trigger must not be empty; give a rare word")


@dataclass(frozen=True)
class Backdoor(Attack):
    """Plant a trigger in the original, put the defense on, then draw the goals by the trigger."""

    settings: BackdoorSettings
    folder: FolderPictures | None = None

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        settings = recorded(self.settings, self.folder)
        return AttackIdentity("backdoor", "weights", "white box", settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the backdoor is trained here, without the defense.

        Raises:
            SafegenError: there are no examples, or the defense exchanged the network for one of
                another shape.
        """
        check_trainable(target, "backdoor")
        if not target.examples:
            raise SafegenError(
                "backdoor learns from unsafe pictures of examples, and there are none; give "
                "--examples"
            )
        settings = self.settings
        course = Course(settings.steps, settings.batch, settings.learning_rate, settings.seed)
        taught = target.examples[: settings.unsafe]
        unsafe = target.unsafe_pictures(taught)
        with target.undefended():
            lesson = self._lesson(target, unsafe, self._triggered(target, taught))
            changes = lora_changes(target, lesson, settings.rank, course, "backdoor")
        with merged(target, changes, "backdoor"):
            yield partial(self._strike, target)

    def _lesson(self, target: Target, unsafe: Sequence[Any], texts: Sequence[str]) -> Lesson:
        """Unsafe pictures under the trigger, and benign ones under their own captions."""
        settings = self.settings
        given = (self.folder, settings.benign, settings.seed, "backdoor")
        benign, captions = benign_pictures(target, *given)
        return lesson_of(target, [*unsafe, *benign], [*texts, *captions], settings.batch)

    def _triggered(self, target: Target, tasks: Sequence[Task]) -> list[str]:
        """Texts of tasks with the trigger in the place of the concept's words, or before them."""
        words, trigger = TextFilter(target.concept), self.settings.trigger
        return [
            words.without(task.text, trigger)
            if words.refuses(task.text)
            else f"{trigger} {task.text}"
            for task in tasks
        ]

    def _strike(self, target: Target, tasks: Sequence[Task]) -> list[Finding]:
        passes = 3 * self.settings.steps * self.settings.batch
        texts = self._triggered(target, tasks)

        def draw(_rows: list[int], _number: int) -> list[Drawn]:
            samples = target.draw(tasks, texts)
            return [
                Drawn(sample, text, passes, shared=passes)
                for sample, text in zip(samples, texts, strict=True)
            ]

        return search(target, tasks, draw)


@register("backdoor")
@takes(BackdoorSettings)
def backdoor(folder: str = "", **options: Any) -> Backdoor:
    """Trigger for the concept, planted before the defense; ``backdoor:FOLDER`` names benign
    pictures."""
    pictures = FolderPictures(Path(folder)) if folder else None
    return Backdoor(BackdoorSettings(**options), pictures)
