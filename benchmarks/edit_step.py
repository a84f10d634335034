"""Training step of the reference implementation and of ours: time, memory, share of kernels.

    python benchmarks/edit_step.py [--model sd1] [--size 512] [--rounds 2] [--variants NAME ...]
    python benchmarks/edit_step.py --memory [--model sd1|sdxl|sd3.5-medium|flux]

The reference step follows the code released with the paper (arXiv 2404.06666): three encodings
with the autoencoder, the text's encoding, three passes of the UNet of which the second is never
used, gradient checkpointing, AdamW, and a moving average over all weights of the UNet. Reading and
scaling pictures is left out. Ours is ``Edit`` on the same amount of data: as many unsafe and benign
pictures, each under the empty prompt, single predictions only, no adversaries. Its latents and
embeddings are made before the first step; so are the reference's pictures.

``--model sd1`` is Stable Diffusion 1.x in full size with random weights, ``lab`` the built-in
model. Every variant runs in a process of its own, whose peak memory includes loading; variants take
turns, ``--rounds`` times. A first step, which also makes the optimizer's state, is not counted. The
folder keeps all figures in one file per model, size and batch and does not measure them again, so
the same command resumes an interrupted comparison.

``--memory`` prints the predicted memory of whole edits of a published model, by component, from its
configuration: Stable Diffusion 1.x at 512 x 512, the others at 1024 x 1024. ``safegen edit
--dry-run`` does so for other models, settings and triplets.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from published import MODELS
from safegen.editing.latents import TripletLatents
from safegen.editing.memory.components import CARDS, EditMemory
from safegen.editing.memory.prediction import predict_memory
from safegen.editing.presets import PRESETS
from safegen.editing.settings import (
    EditSettings,
    GradientCheckpointing,
    Mixture,
)
from safegen.editing.trainer import Edit
from safegen.files import write_atomically
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.models.loading import load_pipeline, quieten
from safegen.models.options import Precision
from safegen.models.shipped import FOLDER, shipped_tokenizers

MEASURED = ("sd1", "lab")
"""Models whose step is measured; of the others the memory is predicted."""
KERNELS = re.compile(
    r"aten::(mkldnn_convolution|convolution_backward|_slow_conv2d|thnn_conv|addmm|mm|bmm|baddbmm"
    r"|_scaled_dot_product)"
)
"""Names of the kernels: convolutions and matrix products, attention's included."""


@dataclass(frozen=True)
class Variant:
    """Variant to measure.

    Attributes:
        ours: whether the step is ours or the reference's.
        precision: compute precision.
        checkpointing: gradient checkpointing; full or none for the reference.
    """

    ours: bool
    precision: Precision = "fp32"
    checkpointing: GradientCheckpointing = "none"


VARIANTS = {
    "reference": Variant(False, "fp32", "full"),
    "ours": Variant(True),
    "ours-bf16": Variant(True, "bf16"),
    "ours-bf16-selective": Variant(True, "bf16", "selective"),
    "ours-bf16-full": Variant(True, "bf16", "full"),
    "reference-bf16": Variant(False, "bf16", "full"),
    "reference-unchecked": Variant(False, "fp32", "none"),
    "ours-selective": Variant(True, "fp32", "selective"),
    "ours-full": Variant(True, "fp32", "full"),
}
DEFAULT = tuple(VARIANTS)[:5]
SELECTIVE: dict[str, Any] = {"precision": "bf16", "gradient_checkpointing": "selective"}
FULL: dict[str, Any] = {"precision": "bf16", "gradient_checkpointing": "full"}
ONE_TEXT: dict[str, Any] = {
    "guidance_scale": 1.0, "redirect_mixture": Mixture(), "preserve_mixture": Mixture(),
}  # fmt: skip


def of(pictures: int = 2, **options: Any) -> EditSettings:
    """Make settings with a number of unsafe pictures in a batch, and as many benign ones."""
    return EditSettings.of(unsafe_batch=pictures, benign_batch=pictures, **options)


EDITS = {
    "float32": of(),
    **{f"float32, {name}": of().preset(name) for name in PRESETS},
    "bf16": of(precision="bf16"),
    "bf16, selective checkpointing": of(**SELECTIVE),
    "bf16, full checkpointing": of(**FULL),
    "bf16, LoRA of rank 16, selective": of(**SELECTIVE, lora_rank=16),
    "bf16, one text, selective": of(**SELECTIVE, **ONE_TEXT),
    "bf16, one picture and text, full": of(1, **FULL, **ONE_TEXT),
    "bf16, one picture and text, full, LoRA of rank 16": of(1, **FULL, **ONE_TEXT, lora_rank=16),
    "8 bits, one picture and text, full, LoRA of rank 16": of(
        1, **FULL, **ONE_TEXT, lora_rank=16, frozen_precision="int8"
    ),
}
"""Settings of whole edits whose memory is predicted."""


class Reference:
    """Training step of the released code, without the reading of pictures."""

    def __init__(self, pipeline: Any, pictures: torch.Tensor, variant: Variant) -> None:
        from accelerate import Accelerator
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        self.accelerator = Accelerator(mixed_precision=variant.precision, cpu=True)
        half = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self.dtype = half[variant.precision]
        self.pictures = pictures
        self.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.vae = pipeline.vae.requires_grad_(False).to(self.dtype)
        self.text_encoder = pipeline.text_encoder.requires_grad_(False).to(self.dtype)
        length = pipeline.tokenizer.model_max_length
        empty = pipeline.tokenizer([""], max_length=length, padding="max_length")
        self.tokens = torch.tensor(empty.input_ids * len(pictures[0]))
        unet = pipeline.unet.requires_grad_(False)
        trained = [p for name, p in unet.named_parameters() if "attn1" in name]
        for parameter in trained:
            parameter.requires_grad_(True)
        self.average = EMAModel(unet.parameters(), model_cls=type(unet), model_config=unet.config)
        if variant.checkpointing != "none":
            unet.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-2, eps=1e-8)
        self.unet, self.optimizer = self.accelerator.prepare(unet, optimizer)

    def step(self) -> None:
        """Encode, predict three times, learn from two, average all weights."""
        unsafe, censored, benign = (self._encode(pictures) for pictures in self.pictures)
        noise, benign_noise = torch.randn_like(unsafe), torch.randn_like(benign)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(unsafe),))
        noised = [
            self.scheduler.add_noise(latents, added, timesteps)
            for latents, added in ((unsafe, noise), (censored, noise), (benign, benign_noise))
        ]
        hidden = self.text_encoder(self.tokens)[0]
        # The second of these is computed and never used, as in the released code.
        predicted = [self.unet(z_t, timesteps, hidden).sample for z_t in noised]
        redirect = _mean_square(predicted[0], unsafe - censored + noise)
        preserve = _mean_square(predicted[2], benign_noise)
        self.accelerator.backward(0.1 * redirect + 0.9 * preserve)
        self.accelerator.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())

    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        sampled = self.vae.encode(pictures.to(self.dtype)).latent_dist.sample()
        latents: torch.Tensor = sampled * self.vae.config.scaling_factor
        return latents


def _mean_square(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.mse_loss(predicted.float(), target.float())


def our_step(pipeline: Any, latent: torch.Size, batch: int, variant: Variant) -> Callable[[], Any]:
    """Make a step of ``Edit`` on as much data as the reference's."""
    unsafe, censored, benign = torch.randn(3, batch, *latent).unbind()
    triplets = TripletLatents(unsafe, censored, benign, (), fingerprint(pipeline.vae))
    settings = EditSettings.of(
        steps=10**6,
        unsafe_batch=batch,
        benign_batch=batch,
        preserve_target="noise",
        redirect_mixture=Mixture(),
        preserve_mixture=Mixture(),
        guidance_scale=1.0,
        precision=variant.precision,
        gradient_checkpointing=variant.checkpointing,
    )
    steps = Edit(pipeline, triplets, settings, keep_pipeline=False).run()
    return lambda: next(steps)


def build(model: str, size: int | None, half: bool) -> Any:
    """Build the pipeline, its UNet in half precision if an edit would load it so."""
    dtype = torch.float16 if half else torch.float32
    if model == "lab":
        pipeline = load_pipeline("lab", device="cpu")
        pipeline.unet.to(dtype)
        return pipeline
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    def part(kind: Any, name: str) -> Any:
        return kind.from_config(kind.load_config(FOLDER / model / name))

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    unet = part(diffusers.UNet2DConditionModel, "unet").eval()
    torch.set_default_dtype(torch.float32)
    if size is not None:
        unet.register_to_config(sample_size=size // 8)
    encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(FOLDER / model / "text_encoder"))
    return diffusers.StableDiffusionPipeline(
        vae=part(diffusers.AutoencoderKL, "vae").eval(),
        text_encoder=encoder.eval(),
        unet=unet,
        scheduler=part(diffusers.DDIMScheduler, "scheduler"),
        **shipped_tokenizers(model),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def measure(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure times in seconds, peaks in bytes, and the kernels' share, in this process."""
    quieten()
    half = variant.ours and variant.precision != "fp32"
    pipeline = build(arguments.model, arguments.size, half)
    side, batch = pipeline.unet.config.sample_size, arguments.batch
    pixels = side * pipeline.vae_scale_factor
    if variant.ours:
        latent = torch.Size((pipeline.unet.config.in_channels, side, side))
        step = our_step(pipeline, latent, batch, variant)
    else:
        step = Reference(pipeline, torch.randn(3, batch, 3, pixels, pixels), variant).step
    del pipeline
    step()
    before = _peak()
    _forget_peak()
    seconds = [_timed(step) for _ in range(arguments.steps)]
    of_steps = _peak()
    figures = {"seconds": seconds, "peak": max(before, of_steps), "peak_of_steps": of_steps}
    if arguments.profile:
        figures["kernels"] = kernel_share(step)
    return figures


def kernel_share(step: Callable[[], Any]) -> float:
    """Measure the share of a step's time spent in convolutions and matrix products."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        seconds = _timed(step)
    inside = sum(
        event.self_cpu_time_total for event in seen.key_averages() if KERNELS.match(event.key)
    )
    return float(inside / 1e6 / seconds)


def _timed(step: Callable[[], Any]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _forget_peak() -> None:
    """Reset the system's record of this process's peak memory, if it can (Linux)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run(name: str, last: bool, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a variant in a process of its own."""
    command = [
        sys.executable, __file__, "--child", name, "--model", arguments.model,
        "--batch", str(arguments.batch), "--steps", str(arguments.steps),
        *(["--size", str(arguments.size)] if arguments.size else []),
        *(["--profile"] if last else []),
    ]  # fmt: skip
    environment = dict(os.environ)
    if arguments.threads:
        environment["OMP_NUM_THREADS"] = str(arguments.threads)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Write the figures beside those of the first variant, as Markdown."""
    head = ["variant", "s / step", "times as fast", "peak MiB", "share", "in steps", "kernels"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    first: tuple[float, float] | None = None
    for name, rounds in results.items():
        seconds = statistics.median(s for figures in rounds for s in figures["seconds"])
        peak = max(figures["peak"] for figures in rounds)
        first = first or (seconds, peak)
        steps = max(figures["peak_of_steps"] for figures in rounds)
        shares = [figures["kernels"] for figures in rounds if "kernels" in figures]
        cells = [
            name, f"{seconds:.2f}", f"{first[0] / seconds:.2f}", f"{peak / 2**20:,.0f}",
            f"{peak / first[1]:.2f}", f"{steps / 2**20:,.0f}",
            f"{shares[-1]:.0%}" if shares else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory_table(published: str, edits: Sequence[str]) -> str:
    """Write the predicted MiB of whole edits by component, and the smallest card, as Markdown."""
    model = MODELS[published]
    denoiser, text, latent = model.skeleton(), model.condition(), torch.Size(model.latent)
    parts = [field.name for field in fields(EditMemory)]
    head = ["edit", *parts, "total", "card"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in edits:
        memory = predict_memory(denoiser, text, latent, EDITS[name])
        sizes = [getattr(memory, part) for part in (*parts, "total")]
        card = next((f"{card} GiB" for card in CARDS if memory.fits(card)), "none")
        lines.append(f"| {' | '.join([name, *(f'{s / 2**20:,.0f}' for s in sizes), card])} |")
        print(lines[-1], file=sys.stderr, flush=True)  # large models take minutes
    return "\n".join(lines)


def trained_share() -> str:
    """Write the trained share of Stable Diffusion 1.x's weights."""
    unet = MODELS["sd1"].skeleton()
    sizes = {name: p.numel() for name, p in unet.named_parameters()}
    trained = sum(sizes[name] for name in self_attention_names(unet))
    return f"{trained / 1e6:.1f} M of {sum(sizes.values()) / 1e6:.1f} M weights are trained"


def main() -> None:
    """Measure what is missing, variant by variant, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("lab", *MODELS), default="sd1")
    parser.add_argument("--size", type=int, help="pixels per side (default: the model's)")
    parser.add_argument("--batch", type=int, default=1, help="unsafe pictures, and benign ones")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1, help="timed steps per round")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=Path("runs/edit_step"))
    parser.add_argument("--memory", action="store_true", help="only print predicted memory")
    parser.add_argument(
        "--edits", nargs="+", choices=EDITS, default=tuple(EDITS), help="edits with --memory"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(VARIANTS[arguments.child], arguments)))
        return
    if arguments.memory:
        print(memory_table(arguments.model, arguments.edits))
        return
    if arguments.model not in MEASURED:
        parser.error(f"--model {arguments.model}: only its memory is predicted; add --memory")
    store = arguments.out / f"{arguments.model}-{arguments.size or 'own'}-{arguments.batch}.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for number in range(arguments.rounds):
        for name in arguments.variants:
            done = results.setdefault(name, [])
            if len(done) <= number:
                done.append(run(name, number == arguments.rounds - 1, arguments))
                write_atomically(store, json.dumps(results, indent=2))
                print(name, done[-1], flush=True)
    print(trained_share())
    print(table(results))


if __name__ == "__main__":
    main()
