"""All settings of an edit; the only defaults there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from safegen.errors import SafegenError
from safegen.models.anatomy import Scope

Objective = Literal["exact", "paper"]
Preservation = Literal["teacher", "noise"]
Optimizer = Literal["adamw", "muon"]
Precision = Literal["no", "bf16", "fp16"]
GradientCheckpointing = Literal["none", "selective", "full"]

LORA_RATE = 10.0
"""How many times larger the learning rate of low-rank factors is by default."""


@dataclass(frozen=True)
class Preset:
    """What changes for a purpose, whatever the other settings are.

    Attributes:
        changes: values by setting.
        steps: how many times as many.
    """

    changes: Mapping[str, Any]
    steps: float = 1.0


PRESETS: Mapping[str, Preset] = {
    "robust": Preset(
        {
            "scope": "self-attention+output",
            "single_gamma": 4.0,
            "unsafe_noise": 8.0,
            "overshoot": 0.3,
            "preserve_weight": 3.2,
            "rehearsal": 0.8,
        },
        steps=4.5,
    ),
}
"""``robust`` holds better against fine-tuning afterwards, and against the noise that DDIM run
backwards makes of unsafe pictures, in steps as coarse as sampling's."""


@dataclass(frozen=True)
class Mixture:
    """Shares of the text conditions in training; none of them is ever unsafe text.

    Attributes:
        empty: the empty prompt, as in the paper.
        random: sequences of random tokens.
        caption: captions of benign pictures; random tokens stand in where there are none.
        adversarial: embeddings that the training moves to where they bring the unsafe back.
    """

    empty: float = 1.0
    random: float = 0.0
    caption: float = 0.0
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.empty, self.random, self.caption, self.adversarial)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise SafegenError(f"shares of a conditioning mixture must sum to 1, not {shares}")

    @classmethod
    def parse(cls, text: str) -> Mixture:
        """From ``empty=0.5,random=0.5``; what is not named is 0."""
        shares = {field.name: 0.0 for field in fields(cls)}
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name.strip() not in shares:
                raise SafegenError(
                    f"conditioning {text!r}: unknown part {name!r}; known: {', '.join(shares)}"
                )
            try:
                shares[name.strip()] = float(value)
            except ValueError as error:
                raise SafegenError(f"conditioning {text!r}: {value!r} is no number") from error
        return cls(**shares)


@dataclass(frozen=True)
class EditSettings:
    """Settings of an edit.

    Attributes:
        scope: train self-attention alone, or the denoiser's output beside it, without which little
            can be redirected where there is hardly any noise.
        objective: ``exact`` (clean-latent space) or ``paper`` (the released objective).
        preservation: stay with the frozen original's output (``teacher``) or regress on the
            true noise as the paper does (``noise``).
        steps: optimizer steps.
        batch: unsafe pairs a step.
        benign_batch: benign pictures a step; as many as pairs if None.
        accumulation: batches whose gradients are averaged in one step.
        optimizer: of all trained weights, or of the matrices alone (``muon``).
        learning_rate: of AdamW, from which Muon's follows, after a linear warm-up of ``warmup``
            steps; falls linearly to ``final_rate`` of it over the second half.
        redirect_weight, preserve_weight: lambda_m and lambda_p.
        gamma: bound of the weight w(t).
        single_gamma: the same where single predictions are compared; None: ``gamma``.
        redirect_mixture, preserve_mixture: text conditions of either half; only the redirect's
            can have an adversarial share.
        guidance: scale of classifier-free guidance under which predictions are compared as well;
            each picture is then seen under the empty prompt and under another text. 1: each is
            seen under one text, and only single predictions count, as in the paper.
        guided_weight: weight of the guided comparison; the single ones have weight 1.
        strengths: what is redirected to z_c lies at z_c + k (z_u - z_c), with k uniform between
            these two: the half dissolved, which sampling passes through, and the overdrawn,
            which guidance makes, as well as z_u itself.
        overshoot: how far past z_c the redirect's target lies: at z_c - overshoot k (z_u - z_c), so
            that there is something in reserve against what brings some of the unsafe back. With
            the unsafe in the noise as well, k is more in turn.
        unsafe_noise: up to how many times (z_u - z_c) is in the noise of half of the unsafe
            pictures, as DDIM run backwards has it there.
        patchwork: share of the pictures that have a rectangle of another one in them; benign ones
            only where a teacher says what the model should make of them.
        pool: number of (picture, noise, t, text) tuples whose teacher outputs are computed once.
        rehearsal: share of the steps whose unsafe half is seen by weights that a rehearsed benign
            fine-tuning has moved, so that the edit holds against one; 0: there is none.
        rehearsal_rate: learning rate of that fine-tuning.
        average_decay: of the moving average of the trained weights, which is the result.
        precision: of the computation (``no`` is float32); trained weights stay float32.
        frozen_precision: in which the weights that are not trained are kept: float32 (``no``) or
            that of the computation, which is the default (None).
        gradient_checkpointing: what the backward pass computes again instead of keeping it:
            nothing, what is cheap (``selective``), or whole blocks (``full``).
        seed: of every random draw.
        checkpoint_every: steps between checkpoints.
        lora_rank: train factors of this rank beside the weights, which takes less memory; None
            trains the weights themselves.
    """

    scope: Scope = "self-attention"
    objective: Objective = "exact"
    preservation: Preservation = "teacher"
    steps: int = 1000
    batch: int = 2
    benign_batch: int | None = None
    accumulation: int = 1
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-5
    warmup: int = 20
    final_rate: float = 0.1
    redirect_weight: float = 1.0
    preserve_weight: float = 1.5
    gamma: float = 1.0
    single_gamma: float | None = None
    redirect_mixture: Mixture = Mixture(empty=0.0, random=0.2, adversarial=0.8)
    preserve_mixture: Mixture = Mixture(empty=0.0, random=0.15, caption=0.85)
    guidance: float = 5.0
    guided_weight: float = 1.0
    strengths: tuple[float, float] = (0.2, 1.6)
    overshoot: float = 0.0
    unsafe_noise: float = 0.0
    patchwork: float = 0.5
    pool: int = 512
    rehearsal: float = 0.0
    rehearsal_rate: float = 5e-5
    average_decay: float = 0.98
    precision: Precision = "no"
    frozen_precision: Precision | None = None
    gradient_checkpointing: GradientCheckpointing = "none"
    seed: int = 0
    checkpoint_every: int = 50
    lora_rank: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("scope", get_args(Scope)),
            ("objective", get_args(Objective)),
            ("preservation", get_args(Preservation)),
            ("optimizer", get_args(Optimizer)),
            ("precision", get_args(Precision)),
            ("gradient_checkpointing", get_args(GradientCheckpointing)),
        ):
            if getattr(self, name) not in choices:
                raise SafegenError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(choices)}"
                )
        for name in ("steps", "batch", "accumulation", "pool", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise SafegenError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("benign_batch", "lora_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SafegenError(f"{name} must be at least 1, not {value}")
        if self.frozen_precision not in (None, "no", self.precision):
            raise SafegenError(
                f"frozen weights in {self.frozen_precision} cannot be computed with in "
                f"{self.precision}; give --precision {self.frozen_precision} too"
            )
        if self.preserve_mixture.adversarial:
            raise SafegenError(
                "preserve_mixture: adversarial conditions belong to the unsafe half; give the "
                "share to empty, random or caption"
            )
        if self.guidance < 1 or self.guided_weight < 0:
            raise SafegenError(
                "guidance must be at least 1 and its weight not negative, not "
                f"{self.guidance} and {self.guided_weight}"
            )
        if self.objective == "paper" and self.guidance != 1:
            raise SafegenError("the paper's objective has no guided form; set guidance to 1")
        low, high = self.strengths
        if not 0 < low <= high:
            raise SafegenError(f"strengths must be two rising positive numbers, not {low}, {high}")
        for name in ("overshoot", "unsafe_noise"):
            if getattr(self, name) < 0:
                raise SafegenError(f"{name} must not be negative, and {getattr(self, name)} is")
        if self.single_gamma is not None and self.single_gamma <= 0:
            raise SafegenError(f"single_gamma must be positive, not {self.single_gamma}")
        if self.lora_rank is not None and self.scope != "self-attention":
            raise SafegenError("factors beside the weights are of self-attention only; set scope")
        if not 0 <= self.patchwork <= 1:
            raise SafegenError(f"patchwork is a share in [0, 1], not {self.patchwork}")
        if not 0 <= self.rehearsal <= 1:
            raise SafegenError(f"rehearsal is a share in [0, 1], not {self.rehearsal}")
        if self.rehearsal and self.precision == "fp16":
            raise SafegenError("rehearsal has no loss scaling; use --precision bf16 or no")
        if self.rehearsal and (self.frozen_precision or self.precision) != "no":
            raise SafegenError("rehearsal moves all weights; give --frozen-precision no")
        for rate in (self.learning_rate, self.rehearsal_rate):
            if rate <= 0:
                raise SafegenError(f"learning rate must be positive, not {rate}")
        if min(self.redirect_weight, self.preserve_weight) < 0 or self.redirect_weight == 0:
            raise SafegenError("the redirect's weight must be positive, the other not negative")
        if not 0 <= self.average_decay < 1:
            raise SafegenError(f"average decay must be in [0, 1), not {self.average_decay}")

    @classmethod
    def lab(cls) -> EditSettings:
        """For the lab's small model, whose weights bear a hundred times larger steps."""
        return cls(
            steps=380,
            batch=4,
            benign_batch=8,
            optimizer="muon",
            learning_rate=1e-3,
            preserve_weight=1.4,
            pool=1280,
            rehearsal_rate=5e-4,
            average_decay=0.99,
        )

    @classmethod
    def paper(cls) -> EditSettings:
        """The settings of the paper and its released code (arXiv 2404.06666)."""
        return cls(
            objective="paper",
            preservation="noise",
            steps=1000,
            batch=1,
            accumulation=5,
            learning_rate=1e-5,
            warmup=1,
            final_rate=1.0,
            redirect_weight=0.1,
            preserve_weight=0.9,
            redirect_mixture=Mixture(),
            preserve_mixture=Mixture(),
            guidance=1.0,
            strengths=(1.0, 1.0),
            patchwork=0.0,
            average_decay=0.999,
        )

    def preset(self, name: str | None) -> EditSettings:
        """The same, but for what one of ``PRESETS`` changes.

        Raises:
            SafegenError: there is no preset of that name.
        """
        if name is None:
            return self
        if name not in PRESETS:
            raise SafegenError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        preset = PRESETS[name]
        return replace(self, **{"steps": round(preset.steps * self.steps), **preset.changes})

    def rate(self, step: int) -> float:
        """The learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        late = max(0.0, 2 * step / self.steps - 1)
        return self.learning_rate * (1 - late * (1 - self.final_rate))
