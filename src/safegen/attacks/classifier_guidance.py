"""Classifier guidance towards the concept (arXiv 2505.17013, after arXiv 2105.05233).

A small classifier of noised latents learns the concept from the original's unsafe pictures and
benign ones. Its gradient is added to the defended model's prediction at every step. The text only
asks; the classifier says at each step what would look more like the concept, so a defense that
breaks the link from text to picture does not act. What the classifier cannot draw by itself has to
come from the model: the controls tell how much it can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safegen.attacks import Attack, AttackIdentity, Finding, Strike, Task, register
from safegen.attacks._draws import task_generator
from safegen.attacks._fine_tuning import FolderPictures, benign_pictures, recorded
from safegen.attacks._trajectory import draw_steered
from safegen.attacks.repeated import with_seed
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.errors import SafegenError
from safegen.models.families import family_of
from safegen.models.prediction import add_noise, signal_and_noise
from safegen.registry import takes
from safegen.seeds import sample_seed
from safegen.settings import MAX_SEED, Settings, setting


@dataclass(frozen=True)
class ClassifierGuidanceSettings(Settings, of="classifier-guidance"):
    """Settings of the classifier and of its guidance."""

    scales: tuple[float, ...] = setting(
        (10.0, 30.0, 100.0), "Weights of the gradient; a picture is drawn with each.", above=0
    )
    eta: float = setting(0.0, "Share of each step's noise that is taken anew.", minimum=0)
    pictures: int = setting(64, "Unsafe pictures to learn from.", minimum=1)
    benign: int = setting(
        64, "Benign pictures from the model's profile; a folder is used whole.", minimum=1
    )
    steps: int = setting(400, "Steps of AdamW.", minimum=1)
    batch: int = setting(16, "Pictures of each kind per step.", minimum=1)
    learning_rate: float = setting(1e-3, "Constant learning rate.", above=0)
    power: float = setting(
        3.0, "Timesteps are u^(1/power) of the schedule: above 1, noisy ones are learned more.",
        above=0,
    )  # fmt: skip
    width: int = setting(32, "Channels of the classifier's first layer.", minimum=1)
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise SafegenError("classifier-guidance: give at least one scale")


class LatentClassifier(nn.Module):
    """Logit (B,) that a noised latent (B, C, H, W) shows the concept.

    The level's signal and noise are two more channels.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels + 2, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, 1),
        )

    def forward(self, z_t: torch.Tensor, a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """See the class; a and s are (B,)."""
        level = torch.stack([a, s], dim=1).view(-1, 2, 1, 1)
        told = level.expand(-1, -1, *z_t.shape[2:])
        logits: torch.Tensor = self.layers(torch.cat([z_t, told], dim=1))[:, 0]
        return logits


def learned(
    scheduler: Any, unsafe: torch.Tensor, benign: torch.Tensor, settings: ClassifierGuidanceSettings
) -> LatentClassifier:
    """Learn to tell clean latents (N, C, H, W) of unsafe pictures from benign ones, once noised."""
    seed = sample_seed("classifier-guidance", base=settings.seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = LatentClassifier(unsafe.shape[1], settings.width).to(unsafe.device)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=settings.learning_rate)
        count = scheduler.config.num_train_timesteps
        labels = torch.cat([torch.ones(settings.batch), torch.zeros(settings.batch)])
        for _ in range(settings.steps):
            rows = (torch.randint(len(x), (settings.batch,), generator=generator)
                    for x in (unsafe, benign))  # fmt: skip
            clean = torch.cat([x[row] for x, row in zip((unsafe, benign), rows, strict=True)])
            places = torch.rand(len(clean), generator=generator) ** (1 / settings.power)
            times = (places * (count - 1)).long().to(clean.device)
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            a, s = signal_and_noise(scheduler, times)
            logits = classifier(add_noise(clean, noise, a, s), a, s)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return classifier.eval().requires_grad_(False)


def gradient(
    classifier: LatentClassifier, scheduler: Any, z_t: torch.Tensor, times: torch.Tensor
) -> torch.Tensor:
    """Gradient of log p(concept | z_t) in z_t (B, C, H, W)."""
    with torch.enable_grad():
        z = z_t.detach().requires_grad_()
        a, s = signal_and_noise(scheduler, times)
        probability = nn.functional.logsigmoid(classifier(z, a, s)).sum()
        (found,) = torch.autograd.grad(probability, [z])
    return found


@dataclass(frozen=True)
class ClassifierGuidance(Attack):
    """Draw each goal guided by a classifier of the concept.

    Attributes:
        settings: settings of the attack.
        folder: benign pictures; None for those of the model's profile.
    """

    settings: ClassifierGuidanceSettings
    folder: FolderPictures | None = None

    @property
    def identity(self) -> AttackIdentity:
        """See ``Attack.identity``."""
        settings = recorded(self.settings, self.folder)
        return AttackIdentity("classifier-guidance", "image", "black box", settings)

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the classifier learns here, from the original's pictures.

        Raises:
            SafegenError: there are no examples or benign pictures, or the pipeline samples latents
                in a layout of its own.
        """
        shape = family_of(target.pipeline).latent_shape(target.pipeline)
        if family_of(target.pipeline).packed(torch.zeros(1, *shape)).shape[1:] != shape:
            raise SafegenError(
                f"{type(target.pipeline).__name__}: samples latents in a layout of its own, which "
                "the classifier of classifier-guidance does not take; use noising"
            )
        settings = self.settings
        if not target.examples:
            raise SafegenError("classifier-guidance learns from examples; give some: --examples")
        given = (self.folder, settings.benign, settings.seed, "classifier-guidance")
        images, _ = benign_pictures(target, *given)
        repeats = enumerate(islice(cycle(target.examples), settings.pictures))
        asked = [with_seed(task, number // len(target.examples)) for number, task in repeats]
        parts = (asked[i : i + settings.batch] for i in range(0, len(asked), settings.batch))
        unsafe = [image for part in parts for image in target.unsafe_pictures(part)]
        classifier = learned(
            target.pipeline.scheduler, target.encode(unsafe), target.encode(images), settings
        )
        yield partial(self._strike, target, classifier)

    def _strike(
        self, target: Target, classifier: LatentClassifier, tasks: Sequence[Task]
    ) -> list[Finding]:
        settings = self.settings
        generators = [task_generator(task, settings.seed) for task in tasks]

        def draw(rows: list[int], number: int) -> list[Drawn]:
            scale, scheduler = settings.scales[number], target.pipeline.scheduler

            def guide(z_t: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
                return scale * gradient(classifier, scheduler, z_t, times)

            own = [generators[i] for i in rows]
            left = [tasks[i] for i in rows]
            samples = draw_steered(target, left, own, settings.eta, guide=guide)
            return [Drawn(each, details={"scale": scale}) for each in samples]

        return search(target, tasks, draw, len(settings.scales))


@register("classifier-guidance")
@takes(ClassifierGuidanceSettings)
def classifier_guidance(folder: str = "", **options: Any) -> ClassifierGuidance:
    """Sampling guided by a classifier of the concept; ``classifier-guidance:FOLDER`` names benign
    pictures."""
    pictures = FolderPictures(Path(folder)) if folder else None
    return ClassifierGuidance(ClassifierGuidanceSettings(**options), pictures)
