"""Cost of a run of Stable Diffusion at 512 x 512 pixels, told before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from safegen.evaluation.plan import planned_prompt_sets
from safegen.evaluation.settings import EvaluationSettings

PASS = 0.803e12
"""Floating-point operations of one latent's pass through the UNet of SD 1.x, as torch counts."""
DECODING = 2.51e12
"""The same of the autoencoder's decoder."""
SUSTAINED = 100e12
"""Assumed operations a second in half precision: a third of an A100's peak."""
PRICE = 2.0
"""Assumed dollars for an hour of such a GPU."""
PICTURE = 0.45e6
"""Bytes of a picture of 512 x 512 pixels as PNG, about."""
GPUS = (1, 8)


@dataclass(frozen=True)
class Cost:
    """Cost of drawing.

    Attributes:
        asked: pictures of one row by prompt set.
        defenses: number of rows, the undefended model among them.
        seconds: seconds on one GPU under ``SUSTAINED``.
    """

    asked: Mapping[str, int]
    defenses: int
    seconds: float

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return self.defenses * sum(self.asked.values())

    def lines(self) -> Iterator[str]:
        """Describe it, a line each."""
        counts = ", ".join(f"{count} {name}" for name, count in self.asked.items())
        yield f"{self.pictures} pictures: {self.defenses} rows on {counts}"
        times = (f"{self.seconds / 3600 / each:.1f} h on {_gpus(each)}" for each in GPUS)
        yield (
            f"about {' or '.join(times)}, {self.seconds / 3600 * PRICE:.0f} dollars at "
            f"{PRICE:g} an hour, {self.pictures * PICTURE / 1e9:.0f} GB of pictures; assumed, not "
            f"measured: {SUSTAINED / 1e12:.0f} TFLOP/s a GPU, without judging. Measure a "
            "picture's seconds first with --count 8 and another --out"
        )


def cost_of(settings: EvaluationSettings) -> Cost:
    """Estimate the cost of drawing; SLD takes three passes a step, all else two.

    Raises:
        SafegenError: a prompt set cannot be read; each is read to its end.
    """
    sets = planned_prompt_sets(settings)
    pictures = {each.record.name: settings.samples * sum(1 for _ in each.prompts) for each in sets}
    passes = [3 if _widens(each.spec) else 2 for each in settings.defense_specs]
    operations = sum(settings.sampling.steps * each * PASS + DECODING for each in passes)
    return Cost(pictures, len(passes), operations * sum(pictures.values()) / SUSTAINED)


def _widens(spec: str) -> bool:
    return any(part.startswith("sld-") for part in spec.split("+"))


def _gpus(count: int) -> str:
    return "one GPU" if count == 1 else f"{count} GPUs"
