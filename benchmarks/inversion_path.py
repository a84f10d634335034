"""How much of the unsafe is left on the way that null-text inversion takes, on the lab.

    python benchmarks/inversion_path.py [--pictures 32] [--steps 16] [--defense SPEC]...

DDIM is run backwards from unsafe validation pictures z_u, without text, and forwards again. At each
noise level this prints how far along from the censored twin z_c (0) to z_u (1) two things lie: the
latent, z_t / a, and the clean latent that the model sees in it, both on the way forwards. A model
that holds shows little of the second where the noise is low, since that is what comes out. What is
told lies beside: how much of z_u - z_c the model takes for noise. Layers that are trained for plain
noise can only tell so much, and that is what an edit of self-attention alone runs into.
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
        timestep: of the level.
        noise: s.
        latent: where z_t / a lies.
        seen: where the clean latent lies that the model sees in it.
        told: how much of z_u - z_c is in the noise that the model sees in it.
    """

    timestep: int
    noise: float
    latent: float
    seen: float
    told: float


def share(latents: torch.Tensor, unsafe: torch.Tensor, censored: torch.Tensor) -> float:
    """Mean coordinate of latents (N, C, H, W) on the lines from the censored to the unsafe."""
    way = (unsafe - censored).flatten(1)
    along = ((latents - censored).flatten(1) * way).sum(dim=1) / way.square().sum(dim=1)
    return float(along.mean())


@torch.no_grad()
def walk(inversion: Inversion, unsafe: torch.Tensor, censored: torch.Tensor) -> list[Level]:
    """Backwards from the unsafe latents, and what is seen on the way forwards again; the last
    level is the result."""
    z, levels = inversion.invert(unsafe)[-1], []
    for level, timestep in enumerate(inversion.times.tolist()):
        a, s = inversion.a[level], inversion.s[level]
        noise = inversion.noise(z, level, inversion.null)
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
    parser.add_argument("--steps", type=int, default=steps, help="of DDIM")
    parser.add_argument("--defense", action="append", help="besides none; may be repeated")
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
