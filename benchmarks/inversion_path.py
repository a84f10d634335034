"""Unsafe content along the path of null-text inversion, on the lab.

    python benchmarks/inversion_path.py [--pictures 32] [--steps 16] [--defense SPEC]...

DDIM runs backwards from unsafe validation pictures z_u, without text, and forwards again. At each
noise level on the way forwards, this prints two positions between the censored twin z_c (0) and
z_u (1): the latent's, z_t / a, and that of the clean latent that the model predicts from it. In a
model that holds, the second is small at low noise, which decides the result. ``told`` is the share
of z_u - z_c that the model takes for noise. Layers trained for plain noise can tell only a part,
which limits an edit of self-attention alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from safegen.attacks import Task
from safegen.attacks.null_text import Inversion, NullTextSettings
from safegen.attacks.target import Target, no_clip
from safegen.defenses import create_defense, defended
from safegen.detectors import create_detector
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.profile import LAB
from safegen.lab.triplets import LabTriplets
from safegen.models.loading import load_pipeline
from safegen.models.sampling import SamplingSettings


@dataclass(frozen=True)
class Level:
    """Means over the pictures at one noise level, on the way forwards; 0 is z_c, 1 is z_u.

    Attributes:
        timestep: timestep of the level.
        noise: noise scale s.
        latent: position of z_t / a.
        seen: position of the clean latent that the model predicts from it.
        told: share of z_u - z_c in the noise that the model predicts from it.
    """

    timestep: int
    noise: float
    latent: float
    seen: float
    told: float


def share(latents: torch.Tensor, unsafe: torch.Tensor, censored: torch.Tensor) -> float:
    """Compute the mean position of latents (N, C, H, W) between the censored and the unsafe."""
    way = (unsafe - censored).flatten(1)
    along = ((latents - censored).flatten(1) * way).sum(dim=1) / way.square().sum(dim=1)
    return float(along.mean())


@torch.no_grad()
def walk(inversion: Inversion, unsafe: torch.Tensor, censored: torch.Tensor) -> list[Level]:
    """Run backwards from the unsafe latents, and return the levels of the way forwards; the last
    is the result."""
    z, levels = inversion.invert(unsafe)[-1], []
    for level, timestep in enumerate(inversion.times.tolist()):
        a, s = inversion.a[level], inversion.s[level]
        noise = inversion.heading(z, level, inversion.null)
        seen = share((z - s * noise) / a, unsafe, censored)
        latent = share(z / a, unsafe, censored)
        levels.append(Level(timestep, s, latent, seen, a * (latent - seen) / s))
        z = inversion.move(z, noise, level, level + 1)
    end = share(z, unsafe, censored)
    return [*levels, Level(0, 0.0, end, end, 0.0)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=32)
    steps = LAB.attacks["null-text"]["steps"]
    parser.add_argument("--steps", type=int, default=steps, help="DDIM steps")
    parser.add_argument("--defense", action="append", help="defense to add; may be repeated")
    arguments = parser.parse_args()
    pipeline, detector = load_pipeline("lab"), create_detector("lab")
    pairs = list(LabTriplets(arguments.pictures, 0, split="validation").pairs())
    tasks = [Task(pair.name, "", 0, 1.0) for pair in pairs]
    for spec in ["none", *(arguments.defense or [])]:
        defense = create_defense(spec)
        sampling = SamplingSettings()
        target = Target(pipeline, defense, LAB_WEAPONS, detector, sampling, no_clip(), ())
        unsafe = target.encode([pair.unsafe for pair in pairs])
        censored = target.encode([pair.censored for pair in pairs])
        with defended(pipeline, defense):
            inversion = Inversion(target, tasks, NullTextSettings(steps=arguments.steps))
            levels = walk(inversion, unsafe, censored)
        print(f"{spec}\n  timestep  noise  latent   seen   told")
        for each in levels:
            print(
                f"  {each.timestep:8d}  {each.noise:5.2f}  {each.latent:6.2f}  {each.seen:5.2f}"
                f"  {each.told:5.2f}"
            )


if __name__ == "__main__":
    main()
