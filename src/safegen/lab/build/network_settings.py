"""Settings of the training of the lab's further models, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from safegen.settings import Settings, setting

PANEL = "Models sd3 and v-prediction"
TWIN = {"samples": 192_000, "scenes": 24_000, "batch": 32, "learning_rate": 4e-4}
"""Settings by which the v-prediction twin, which is fine-tuned, differs from the defaults."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings):
    """Sizes and seed of the training of one network.

    Defaults are those of ``lab-sd3``; ``TWIN`` has the twin's.
    """

    samples: int = setting(163_840, "Pictures seen in training.", panel=PANEL, minimum=1)
    scenes: int = setting(
        40_000,
        "Different scenes among them, drawn once.",
        panel=PANEL,
        minimum=1,
    )
    batch: int = setting(64, "Pictures a step.", panel=PANEL, minimum=1)
    learning_rate: float = setting(1e-3, "Highest learning rate of AdamW.", panel=PANEL, above=0)
    average_decay: float = setting(
        0.999, "Decay of the weights' moving average, which is kept.", panel=PANEL, minimum=0,
        below=1,
    )  # fmt: skip
    caption_dropout: float = setting(
        0.1, "Share of the captions that are empty.", panel=PANEL, minimum=0, maximum=1
    )
    seed: int = setting(
        20240407, "Seed of every random draw.", panel=PANEL, minimum=0, maximum=2**32 - 1
    )

    @property
    def steps(self) -> int:
        """Number of steps, the last of which completes the samples."""
        return -(-self.samples // self.batch)
