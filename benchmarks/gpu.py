"""What edits of published models take on an accelerator, in at most five minutes.

    python benchmarks/gpu.py --predict                  # anywhere, some minutes
    python benchmarks/gpu.py [--minutes 5]              # on the accelerator
    python benchmarks/gpu.py --tiny [--device cpu]      # small models, to try it

On Stable Diffusion 1.x, XL, 3.5 medium and FLUX.1 with random weights, in bf16 and fp16, it
measures

- a step of an edit: its time and its peak memory, beside the prediction;
- a step of the code released with the paper (arXiv 2404.06666) on the same denoiser, without
  encoding: three passes of which the second is never used, gradient checkpointing, AdamW, and a
  moving average over all weights, which are held in fp32;
- drawing without a patch, with it, and after its removal, which has to give the first pictures.

Before these it edits a tiny model of each kind in fp32, on the CPU and on the device. The patches
have to agree: the distance of all differences is at most ``BOUND`` of their norm. ``--compare
FOLDER`` does so with the patches that another machine wrote under its ``--out``.

Every measurement is written when it is made. After ``--minutes`` none is begun; what is missing is
said in the table. The exit status is 1 if patches or pictures do not agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from published import MODELS
from random_models import build, random_triplets
from safegen.editing.memory.precision import DTYPES
from safegen.editing.memory.prediction import predict_memory
from safegen.editing.run import edit, predict
from safegen.editing.settings import EditSettings, Mixture
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError, first_line
from safegen.files import write_atomically
from safegen.models.anatomy import denoiser_of, self_attention_names
from safegen.models.conditioning import encode_prompts
from safegen.models.denoising import predict as denoise
from safegen.models.loading import quieten
from safegen.models.options import Precision
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.patches.patch import Patch, apply, remove

BOUND = 0.05
"""Largest distance of two patches, as a share of the norm."""
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16")
STEPS = 3
"""Timed steps after the first."""
AGREED = 6
"""Steps of the edits whose patches are compared."""
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """Figures of one model in one precision; None where time or memory ran out.

    Attributes:
        ours: seconds of an edit's step.
        peak: its peak memory in bytes, on an accelerator alone.
        predicted: bytes predicted.
        reference: seconds of the reference's step.
        reference_peak: its peak memory.
        drawing: seconds of a picture without a patch, and with it.
        note: what went wrong.
    """

    ours: float | None = None
    peak: int | None = None
    predicted: int | None = None
    reference: float | None = None
    reference_peak: int | None = None
    drawing: tuple[float, float] | None = None
    note: str = ""


def settings_of(precision: Precision, steps: int = 1000) -> EditSettings:
    """One unsafe and one benign picture under the empty prompt, selective checkpointing."""
    return EditSettings.of(
        steps=steps,
        unsafe_batch=1,
        benign_batch=1,
        warmup_steps=1,
        precision=precision,
        gradient_checkpointing="none" if precision == "fp32" else "selective",
        redirect_mixture=Mixture(),
        preserve_mixture=Mixture(),
    )


class Reference:
    """A step of the released recipe on any denoiser, without encoding."""

    def __init__(self, pipeline: Any, precision: Precision, device: torch.device) -> None:
        from diffusers.training_utils import EMAModel

        denoiser: Any = denoiser_of(pipeline)
        self.denoiser = denoiser.float().requires_grad_(False)
        self.precision, self.device = precision, device
        names = set(self_attention_names(self.denoiser))
        self.trained = [p for name, p in self.denoiser.named_parameters() if name in names]
        for parameter in self.trained:
            parameter.requires_grad_(True)
        self.denoiser.enable_gradient_checkpointing()
        self.average = EMAModel(self.denoiser.parameters())
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, weight_decay=1e-2)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.text = encode_prompts(pipeline, [""]).to(device)
        shape = random_triplets(pipeline, 1).unsafe.shape
        self.latents = [torch.randn(shape, device=device) for _ in range(3)]

    def __call__(self) -> None:
        timesteps = torch.full((1,), 500, device=self.device)
        with torch.autocast(self.device.type, DTYPES[self.precision]):
            outputs = [denoise(self.denoiser, z_t, timesteps, self.text) for z_t in self.latents]
        losses = [outputs[i].pow(2).mean() for i in (0, 2)]
        scaled = self.scaler.scale(0.1 * losses[0] + 0.9 * losses[1])
        scaled.backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.step(self.denoiser.parameters())


def measured(device: torch.device, step: Callable[[], Any]) -> tuple[float, int | None]:
    """Median seconds of ``STEPS`` steps after the first, and their peak memory in bytes."""
    step()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [timed(device, step)[0] for _ in range(STEPS)]
    return statistics.median(seconds), torch.cuda.max_memory_allocated(device) if on_gpu else None


def timed(device: torch.device, action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of an action until the device is done, and its result."""
    began = time.perf_counter()
    result = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def draw(pipeline: Any, device: torch.device) -> tuple[float, np.ndarray]:
    """Draw one picture in four steps with guidance; returns its seconds and pixels."""
    sampling = SamplingSettings(steps=4, guidance_scale=3.5)
    seconds, drawn = timed(
        device, lambda: list(generate(pipeline, [ImageRequest("a cat", 1)], sampling))
    )
    return seconds, drawn[0][1]


def edited(pipeline: Any, row: dict[str, Any], precision: Precision, device: torch.device) -> Patch:
    """Edit for a few steps and note their time and memory."""
    run = Edit(pipeline, random_triplets(pipeline), settings_of(precision, STEPS + 1))
    steps = run.run()
    row["ours"], row["peak"] = measured(device, lambda: next(steps))
    list(steps)
    return run.patch()


def measure(
    model: str, precision: Precision, device: torch.device, tiny: bool, late: Callable[[], bool]
) -> dict[str, Any]:
    """Measure one model in one precision, as far as time and memory reach."""
    row: dict[str, Any] = {}
    try:
        pipeline = build(model, DTYPES[precision], device, tiny)
        draw(pipeline, device)  # the first picture makes the device's kernels ready
        before, plain = draw(pipeline, device)
        patch = edited(pipeline, row, precision, device)
        if not late():
            apply(pipeline, patch)
            after, _ = draw(pipeline, device)
            remove(pipeline, patch)
            row["drawing"] = (before, after)
            if not np.array_equal(draw(pipeline, device)[1], plain):
                row["note"] = "a removed patch leaves other pictures"
        if not late():
            step = Reference(pipeline, precision, device)
            row["reference"], row["reference_peak"] = measured(device, step)
    except (SafegenError, torch.OutOfMemoryError) as error:
        row["note"] = first_line(error)
    return row


def tiny_patch(model: str, device: torch.device) -> dict[str, torch.Tensor]:
    """Differences of a short edit of a tiny model, in fp32."""
    pipeline = build(model, torch.float32, device, tiny=True)
    patch = edit(pipeline, random_triplets(pipeline, 4), settings_of("fp32", AGREED))
    return {name: value.cpu() for name, value in patch.differences.items()}


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """|a - b| / |b| over all differences of two patches; infinite if they name other weights."""
    if one.keys() != other.keys():
        return float("inf")
    apart = sum(float((one[name] - value).double().square().sum()) for name, value in other.items())
    whole = sum(float(value.double().square().sum()) for value in other.values())
    return float((apart / whole) ** 0.5)


def agreements(arguments: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Distances of patches made on the device from those of the CPU, or of another machine."""
    from safetensors.torch import load_file, save_file

    found = {}
    for model in arguments.models:
        place = arguments.out / "patches" / f"{model}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        here = tiny_patch(model, device)
        save_file(here, place)
        if arguments.compare:
            other = load_file(arguments.compare / "patches" / place.name)
        else:
            other = tiny_patch(model, torch.device("cpu"))
        found[model] = distance(here, other)
        print(f"{model}: patches differ by {found[model]:.2%}", flush=True)
    return found


def predictions(arguments: argparse.Namespace) -> dict[str, int]:
    """Predict the peak memory in bytes of every model and precision, by both names."""
    found = {}
    for model in arguments.models:
        published = MODELS[model]
        for precision in arguments.precisions:
            settings, latent = settings_of(precision), torch.Size(published.latent)
            memory = predict_memory(published.skeleton(), published.condition(), latent, settings)
            found[f"{model} {precision}"] = memory.total
            print(model, precision, f"{memory.total / GIB:.1f} GiB", flush=True)
    return found


def table(rows: Mapping[str, Row], asked: list[str]) -> str:
    """Write all figures as Markdown."""
    head = ["model", "s / step", "peak", "predicted", "reference", "its peak", "drawing", "patched"]
    lines = [f"| {' | '.join([*head, 'note'])} |", "|---" * (len(head) + 1) + "|"]
    for name in asked:
        row = rows.get(name, Row(note="not reached"))
        drawing = row.drawing or (None, None)
        cells = [
            _seconds(row.ours), _size(row.peak), _size(row.predicted), _seconds(row.reference),
            _size(row.reference_peak), *map(_seconds, drawing), row.note,
        ]  # fmt: skip
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _size(value: int | None) -> str:
    return "" if value is None else f"{value / GIB:.1f} GiB"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=tuple(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--minutes", type=float, default=5.0, help="begin nothing afterwards")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small models")
    parser.add_argument("--predict", action="store_true", help="only predict memory")
    parser.add_argument("--compare", type=Path, help="another machine's --out")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    arguments = parser.parse_args(argv)
    if arguments.device == "cpu" and not (arguments.tiny or arguments.predict):
        parser.error("without an accelerator only --tiny and --predict end in minutes")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Compare patches, measure model by model, and print the table."""
    arguments = parse(argv)
    end = time.monotonic() + 60 * arguments.minutes
    quieten()
    known = arguments.out / "predictions.json"
    if arguments.predict:
        write_atomically(known, json.dumps(predictions(arguments), indent=2))
        return 0
    predicted = json.loads(known.read_text()) if known.exists() else {}
    device = torch.device(arguments.device)
    distances, rows = agreements(arguments, device), {}
    pairs = list(product(arguments.models, arguments.precisions))
    asked = [" ".join(pair) for pair in pairs]
    for name, (model, precision) in zip(asked, pairs, strict=True):
        if time.monotonic() > end:
            break
        told: dict[str, Any] = {"predicted": predicted.get(name)}
        if arguments.tiny:
            small = build(model, torch.float32, torch.device("cpu"), tiny=True)
            memory = predict(small, random_triplets(small), settings_of(precision))
            told = {"predicted": memory.total}
        late = lambda: time.monotonic() > end  # noqa: E731
        rows[name] = Row(**told, **measure(model, precision, device, arguments.tiny, late))
        results = {"distances": distances, "rows": {key: asdict(row) for key, row in rows.items()}}
        write_atomically(arguments.out / "results.json", json.dumps(results, indent=2))
    print(table(rows, asked))
    wrong = [row.note for row in rows.values() if "leaves other pictures" in row.note]
    return int(bool(wrong) or max(distances.values()) > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
