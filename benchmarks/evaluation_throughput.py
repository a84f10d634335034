"""Throughput of an evaluation on the lab, beside the plain loop of research scripts.

    python benchmarks/evaluation_throughput.py [--prompts 640] [--cores 2] [--out FOLDER]

Both draw the same held-out prompts from the same seeds with the same sampler, steps and guidance,
write a PNG of each and run the same detector on it; one after the other, on the same cores.

- The plain loop calls the pipeline once per prompt, as in diffusers' manual, and saves the picture;
  then the detector reads the files one at a time. Each call uses all cores.
- ``evaluate`` has a worker with one thread on each core, which draws in batches. It also keeps its
  results store and computes the table.

Loading is not counted. The plain loop's clock starts after a first picture, which is not counted,
by pipeline and detector. The clock of ``evaluate`` starts when it begins to draw: its first worker
has loaded the model to record it, and the others load theirs while the clock runs, so few prompts
favour the plain loop. The time before each clock's start is printed too.

The exit code is 1 if the two differ in their pictures by more than rounding, or in the detector's
findings. ``results.json`` in the folder has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from safegen.detectors import Detector, create_detector
from safegen.evaluation.executors import ExecutorOptions
from safegen.evaluation.run import evaluate
from safegen.evaluation.settings import EvaluationSettings
from safegen.evaluation.worker import decode
from safegen.files import write_atomically
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import Kind
from safegen.models.loading import load_pipeline
from safegen.models.sampling import SAMPLERS
from safegen.prompts import Prompt
from safegen.results.cells import StoredCells, read_picture
from safegen.results.records import ORIGINAL
from safegen.results.store import CellKey, ResultsStore

SET: Kind = "explicit"
BATCH = 16
"""Batch size: as fast as any on a CPU, and small enough that all workers stay busy to the end."""
SAME = 3
"""Largest difference of pixels, of 255, that counts as rounding."""
LARGE_RUN = (56_000, 12)
"""Prompts and defenses of the largest run in the manual."""
WORKERS = (2, 16, 64, 256)


@dataclass(frozen=True)
class Outcome:
    """Outcome of one of the two.

    Attributes:
        name: name in tables.
        loading: seconds before the clock started.
        seconds: seconds on the clock.
        pictures: pictures, uint8 (N, H, W, 3), in the prompts' order.
        flagged: whether the detector found anything in each, bool (N,).
    """

    name: str
    loading: float
    seconds: float
    pictures: np.ndarray
    flagged: np.ndarray

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return len(self.pictures) / self.seconds


def plain_loop(prompts: list[Prompt], folder: Path, cores: int) -> Outcome:
    """Call the pipeline once per prompt, then the detector once per file."""
    torch.set_num_threads(cores)
    began = time.monotonic()
    pipeline: Any = load_pipeline("lab")
    name, options = SAMPLERS[SAMPLING.sampler]
    scheduler = getattr(diffusers, name)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **options)
    detector = create_detector("lab")
    _draw_one(pipeline, prompts[0]).save(folder / "warm-up.png")
    _is_flagged(detector, folder / "warm-up.png")
    loaded = time.monotonic()
    for prompt in prompts:
        _draw_one(pipeline, prompt).save(folder / f"{prompt.id}.png")
    files = [folder / f"{prompt.id}.png" for prompt in prompts]
    flagged = [_is_flagged(detector, file) for file in files]
    ended = time.monotonic()
    pictures = np.stack([decode(file.read_bytes()) for file in files])
    return Outcome("plain loop", loaded - began, ended - loaded, pictures, np.array(flagged))


def _draw_one(pipeline: Any, prompt: Prompt) -> Image.Image:
    image: Image.Image = pipeline(
        prompt.text,
        num_inference_steps=SAMPLING.steps,
        guidance_scale=SAMPLING.guidance_scale,
        generator=torch.Generator().manual_seed(prompt.seed),
    ).images[0]
    return image


def _is_flagged(detector: Detector, file: Path) -> bool:
    with Image.open(file) as image:
        return bool(detector.detect([np.asarray(image)])[0])


def evaluation(prompts: list[Prompt], folder: Path, cores: int) -> Outcome:
    """Run ``evaluate`` on the undefended lab."""
    settings = EvaluationSettings(
        model="lab",
        defenses=(ORIGINAL,),
        unsafe=(f"{SET}=lab:{SET},count={len(prompts)}",),
        observers=("detector:lab",),
        sampling=SAMPLING,
        batch=BATCH,
    )
    loaded: list[float] = []

    def say(line: str) -> None:
        if line.startswith("drawing "):
            loaded.append(time.monotonic())

    began = time.monotonic()
    table = evaluate(settings, folder, options=ExecutorOptions(workers=cores), say=say)
    ended = time.monotonic()
    cell = CellKey(ORIGINAL, SET)
    with ResultsStore(folder) as store:
        pictures = [decode(read_picture(store, cell, at)) for at in range(len(prompts))]
        sets = list(table.prompt_sets)
        seen = StoredCells(store, [ORIGINAL], sets, ["detector"])[cell].observations["detector"]
    flagged = np.array([bool(each.values["detections"]) for each in seen])
    (at,) = loaded
    return Outcome("evaluate", at - began, ended - at, np.stack(pictures), flagged)


def report(plain: Outcome, ours: Outcome, cores: int) -> dict[str, Any]:
    """Collect all figures as JSON values."""
    apart = np.abs(plain.pictures.astype(int) - ours.pictures.astype(int))
    prompts, defenses = LARGE_RUN
    worker_seconds = cores / ours.rate
    return {
        "pictures": len(ours.pictures),
        "cores": cores,
        "batch": BATCH,
        "sampling": asdict(SAMPLING),
        "torch": torch.__version__,
        "pictures_per_second": {each.name: each.rate for each in (plain, ours)},
        "loading_seconds": {each.name: each.loading for each in (plain, ours)},
        "ratio": ours.rate / plain.rate,
        "largest_pixel_difference": int(apart.max()),
        "identical_pictures": int((apart.reshape(len(apart), -1).max(axis=1) == 0).sum()),
        "flagged": {each.name: int(each.flagged.sum()) for each in (plain, ours)},
        "flagged_alike": bool((plain.flagged == ours.flagged).all()),
        "worker_seconds_per_picture": worker_seconds,
        "large_run_hours": {
            count: prompts * defenses * worker_seconds / count / 3600 for count in WORKERS
        },
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"{figures['pictures']} pictures on {figures['cores']} cores, loading not counted:")
    for name, rate in figures["pictures_per_second"].items():
        print(
            f"  {name:12} {rate:7.2f} pictures/s   {figures['loading_seconds'][name]:.1f} s before"
        )
    print(f"  ratio        {figures['ratio']:7.2f}")
    print(
        f"largest pixel difference {figures['largest_pixel_difference']} of 255, "
        f"{figures['identical_pictures']} pictures identical; "
        f"flagged {' and '.join(map(str, figures['flagged'].values()))}"
    )
    prompts, defenses = LARGE_RUN
    print(
        f"{prompts:,} prompts x {defenses} defenses = {prompts * defenses:,} pictures at "
        f"{figures['worker_seconds_per_picture']:.3f} worker-seconds each:"
    )
    for count, hours in figures["large_run_hours"].items():
        print(f"  {count:4} workers {hours:8.2f} h")


def keep_to(cores: int) -> int:
    """Limit this process and its children to some cores, if the system can; return their
    number."""
    if not hasattr(os, "sched_setaffinity"):
        return cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return len(os.sched_getaffinity(0))


def main() -> None:
    """Run both, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=640)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation_throughput"))
    arguments = parser.parse_args()
    cores = keep_to(arguments.cores)
    prompts = lab_prompts(SET, "held-out", arguments.prompts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        plain = plain_loop(prompts, Path(folder), cores)
        ours = evaluation(prompts, Path(folder) / "run", cores)
    figures = report(plain, ours, cores)
    write_atomically(arguments.out / "results.json", json.dumps(figures, indent=2) + "\n")
    show(figures)
    if figures["largest_pixel_difference"] > SAME or not figures["flagged_alike"]:
        sys.exit("the two did not draw or find the same")


if __name__ == "__main__":  # worker processes import this file as well
    main()
