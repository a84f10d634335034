"""Settings of an edit and their only defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from safegen.editing.presets import PRESETS
from safegen.errors import SafegenError
from safegen.models.options import FrozenPrecision, Precision, Scope
from safegen.settings import MAX_SEED, Settings, setting

Objective = Literal["exact", "paper"]
PreserveTarget = Literal["teacher", "noise"]
Optimizer = Literal["adamw", "muon"]
GradientCheckpointing = Literal["none", "selective", "full"]

MAX_BATCH = 1024
"""Largest batch of one half; more fits no device."""


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
        if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # NaN is refused too
            raise SafegenError(f"shares of a conditioning mixture must sum to 1, not {shares}")

    @classmethod
    def parse(cls, text: str) -> Mixture:
        """Parse ``empty=0.5,random=0.5``; missing shares are 0."""
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

    def __str__(self) -> str:
        """Format as ``parse`` reads it."""
        return ",".join(f"{name}={share:g}" for name, share in vars(self).items() if share)


@dataclass(frozen=True)
class Loss(Settings):
    """Loss between predictions and targets, for both halves."""

    objective: Objective = setting(
        "exact",
        "Objective: exact (in clean latents), or paper (as published, with the published "
        "settings).",
    )
    guidance_scale: float = setting(
        5.0,
        "Scale of classifier-free guidance at which predictions are compared as well, each "
        "picture under the empty prompt and one other text; 1 compares single predictions only.",
        minimum=1,
    )
    guided_weight: float = setting(
        1.0, "Weight of the guided comparison; that of the single one is 1.", minimum=0
    )
    gamma: float = setting(1.0, "Upper bound of the weight w(t) = min(a / s, gamma).", above=0)
    single_gamma: float | None = setting(
        None, "Upper bound of w(t) in single comparisons (default: gamma).", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "paper" and self.guidance_scale != 1:
            raise SafegenError(
                "--objective paper has no guided form; set --guidance-scale to 1, not "
                f"{self.guidance_scale}"
            )


@dataclass(frozen=True)
class Redirect(Settings):
    """Redirection of unsafe pictures to their censored form."""

    weight: float = setting(1.0, "Weight of the redirect, lambda_m.", "redirect_weight", above=0)
    mixture: Mixture = setting(
        Mixture(empty=0.0, random=0.2, adversarial=0.8),
        "Shares of the unsafe half's text conditions: empty, random, caption, adversarial.",
        "redirect_mixture",
    )
    interpolation_range: tuple[float, float] = setting(
        (0.2, 1.6),
        "Range of k in z_c + k (z_u - z_c), the picture that is redirected to z_c: below 1 "
        "partly censored, above 1 exaggerated.",
        above=0,
    )
    overshoot: float = setting(
        0.0,
        "Distance of the target beyond z_c: the target is z_c - overshoot k (z_u - z_c).",
        minimum=0,
    )
    unsafe_noise: float = setting(
        0.0,
        "Largest multiple of (z_u - z_c) in the noise of half of the unsafe pictures, where "
        "DDIM inversion leaves it.",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.interpolation_range
        if low > high:
            raise SafegenError(f"--interpolation-range must rise, and {low:g},{high:g} falls")


@dataclass(frozen=True)
class Preserve(Settings):
    """Preservation of benign pictures."""

    bound: float = setting(
        0.03,
        "Bound that the preserve loss is held at, as a share of the mean |z_u - z_c|^2.",
        "preserve_bound",
        above=0,
    )
    weight: float | None = setting(
        None,
        "Weight of the preservation, lambda_p (default: a multiplier, raised and lowered so that "
        "the loss stays at its bound).",
        "preserve_weight",
        minimum=0,
    )
    mixture: Mixture = setting(
        Mixture(empty=0.0, random=0.15, caption=0.85),
        "Shares of the benign half's text conditions: empty, random, caption.",
        "preserve_mixture",
    )
    target: PreserveTarget = setting(
        "teacher",
        "Target of the benign half: teacher (the frozen original's output), or noise (the true "
        "noise, as published).",
        "preserve_target",
    )
    text: float = setting(
        1.0,
        "Weight, in the preserve loss, of what changes in the text's stream of joint attention; "
        "other models have none.",
        "preserve_text",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixture.adversarial:
            raise SafegenError(
                "--preserve-mixture: adversarial conditions belong to the unsafe half; give the "
                "share to empty, random or caption"
            )


@dataclass(frozen=True)
class Data(Settings):
    """Pictures of a step."""

    unsafe_batch: int = setting(4, "Unsafe pairs a batch.", minimum=1, maximum=MAX_BATCH)
    benign_batch: int | None = setting(
        None,
        "Benign pictures a batch (default: twice the unsafe batch).",
        minimum=1,
        maximum=MAX_BATCH,
    )
    cutmix: float = setting(
        0.5,
        "CutMix: share of the pictures that hold a rectangle of another one.",
        minimum=0,
        maximum=1,
    )

    @property
    def preserve_batch(self) -> int:
        """Benign pictures per batch."""
        return self.benign_batch or 2 * self.unsafe_batch


@dataclass(frozen=True)
class Optimisation(Settings):
    """Optimisation of the trained weights."""

    steps: int = setting(
        1140,
        "Largest number of optimizer steps; an edit with targets ends when its probes reach them "
        "and the redirect left no longer falls.",
        minimum=1,
    )
    least_steps: int = setting(0, "Steps before which no probe ends the edit.", minimum=0)
    cycle: int = setting(
        380,
        "Steps of a cycle, after which a probe is drawn; steps shrink over its second half, and "
        "the full step of the n-th cycle is 1/n of the first's (warm restarts, arXiv 1608.03983).",
        minimum=1,
    )
    gradient_accumulation: int = setting(
        1, "Batches whose gradients are averaged in one step.", minimum=1
    )
    optimizer: Optimizer = setting(
        "muon",
        "Optimizer: muon (Muon's direction for matrices and Adam's for the rest, with steps in "
        "shares of the weights' norms), or adamw (as published).",
    )
    step_size: float = setting(
        0.025,
        "Length of a step of muon, as a share of the Frobenius norm of each weight.",
        above=0,
        maximum=1,
    )
    learning_rate: float = setting(1e-5, "Learning rate of adamw.", above=0, maximum=1)
    warmup_steps: int = setting(20, "Steps of linear warm-up.", minimum=0)
    final_rate: float = setting(
        0.1,
        "Share of the full step that is left at the end of a cycle; it falls linearly over the "
        "second half.",
        minimum=0,
        maximum=1,
    )
    ema_decay: float = setting(
        0.99,
        "EMA decay: of the exponential moving average of the trained weights, which is the result.",
        minimum=0,
        below=1,
    )
    lora_rank: int | None = setting(
        None,
        "Rank of low-rank factors trained instead of whole weights, for small cards (extra "
        "'lora').",
        minimum=1,
    )

    def schedule(self, step: int) -> float:
        """Share of the full step at a step, in (0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        cycle, place = divmod(step, self.cycle)
        late = max(0.0, 2 * place / min(self.cycle, self.steps) - 1)
        return (1 - late * (1 - self.final_rate)) / (1 + cycle)


@dataclass(frozen=True)
class Computation(Settings):
    """Precision, memory and device use of an edit."""

    precision: Precision = setting(
        "fp32", "Precision of the computation; trained weights stay fp32."
    )
    frozen_precision: FrozenPrecision | None = setting(
        None,
        "Precision of the frozen weights (default: the compute precision); int8 holds large "
        "matrices in 8 bits.",
    )
    gradient_checkpointing: GradientCheckpointing = setting(
        "none",
        "Activations computed again in the backward pass instead of kept: none, selective (the "
        "cheap ones), or full (whole blocks).",
    )
    checkpoint_every: int = setting(50, "Steps between two checkpoints.", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen_precision not in (None, "fp32", "int8", self.precision):
            raise SafegenError(
                f"frozen weights in {self.frozen_precision} cannot be computed with in "
                f"{self.precision}; give --precision {self.frozen_precision} too"
            )

    @property
    def kept_precision(self) -> FrozenPrecision:
        """Precision of the frozen weights."""
        return self.frozen_precision or self.precision


@dataclass(frozen=True)
class Rehearsal(Settings):
    """Benign fine-tuning rehearsed during the edit, so that the edit survives a real one."""

    share: float = setting(
        0.0,
        "Share of the steps whose unsafe half is seen by weights that a rehearsed benign "
        "fine-tuning has moved; 0 rehearses nothing.",
        "rehearsal_share",
        minimum=0,
        maximum=1,
    )
    step_size: float = setting(
        0.005,
        "Length of a step of the rehearsed fine-tuning, as a share of each weight's norm.",
        "rehearsal_step_size",
        above=0,
        maximum=1,
    )


@dataclass(frozen=True)
class EditSettings(Settings):
    """Settings of an edit: scope, seed and groups of further settings.

    ``EditSettings.of(steps=500, overshoot=0.3)`` takes values by the names of the options.
    """

    scope: Scope = setting(
        "self-attention",
        "Weights to train: self-attention, or self-attention+output (the denoiser's output "
        "layer too, which redirects where there is hardly any noise).",
    )
    seed: int = setting(0, "Seed of every random draw.", minimum=0, maximum=MAX_SEED)
    loss: Loss = Loss()
    redirect: Redirect = Redirect()
    preserve: Preserve = Preserve()
    data: Data = Data()
    optimisation: Optimisation = Optimisation()
    computation: Computation = Computation()
    rehearsal: Rehearsal = Rehearsal()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimisation.lora_rank is not None and self.scope != "self-attention":
            raise SafegenError(
                f"--lora-rank trains factors of self-attention only; leave out --scope {self.scope}"
            )
        if not self.rehearsal.share:
            return
        if self.computation.precision == "fp16":
            raise SafegenError("a rehearsal has no loss scaling; use --precision bf16 or fp32")
        if self.computation.kept_precision != "fp32":
            raise SafegenError("a rehearsal moves all weights; give --frozen-precision fp32")

    @classmethod
    def paper(cls) -> EditSettings:
        """Settings of the paper and its released code (arXiv 2404.06666)."""
        return cls.of(
            objective="paper",
            optimizer="adamw",
            preserve_target="noise",
            steps=1000,
            cycle=1000,
            unsafe_batch=1,
            benign_batch=1,
            gradient_accumulation=5,
            learning_rate=1e-5,
            warmup_steps=1,
            final_rate=1.0,
            redirect_weight=0.1,
            preserve_weight=0.9,
            redirect_mixture=Mixture(),
            preserve_mixture=Mixture(),
            guidance_scale=1.0,
            interpolation_range=(1.0, 1.0),
            cutmix=0.0,
            ema_decay=0.999,
        )

    def preset(self, name: str | None) -> EditSettings:
        """Apply one of ``PRESETS``.

        Raises:
            SafegenError: the preset is unknown, or the objective is the paper's, whose settings a
                preset would change.
        """
        if name is None:
            return self
        if name not in PRESETS:
            raise SafegenError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        if self.loss.objective == "paper":
            raise SafegenError(
                f"--preset {name} changes what --objective paper publishes; leave one of them out"
            )
        preset = PRESETS[name]
        steps = round(preset.steps * self.optimisation.steps)
        return self.changed(**{"steps": steps, **preset.changes})
