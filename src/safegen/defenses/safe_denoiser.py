"""Safe Denoiser (arXiv 2502.08011): sampling repelled from unsafe pictures, without training.

Where a step's prediction of the clean latent is x_data, it becomes
x_safe = x_data + eta beta(x_t) (x_data - x_unsafe) (equation 7): x_unsafe is the mean of a set of
unsafe pictures, each weighted by the likelihood of x_t under it (equation 6), and beta(x_t) the
mean of these likelihoods. Under classifier-free guidance the unconditional prediction is repelled,
and the distance to the conditional one stays (equation 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from safegen.concepts import Concept
from safegen.defenses import Defense, DefenseIdentity, Undo, register
from safegen.defenses._steering import check_steerable, with_sample
from safegen.defenses._text import on_encode_prompt
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.models.anatomy import denoiser_of, fingerprint
from safegen.models.autoencoder import encode_pictures
from safegen.models.families import family_of
from safegen.models.prediction import clean_latent, output_for, prediction_of, signal_and_noise
from safegen.registry import takes
from safegen.settings import Settings, setting
from safegen.triplets import create_triplets
from safegen.triplets.schema import SCHEMA


@dataclass(frozen=True, kw_only=True)
class SafeDenoiserSettings(Settings, of="safe-denoiser"):
    """Settings of the repulsion, in the paper's symbols."""

    eta: float = setting(1.0, "Strength of the repulsion.", above=0)
    threshold: float = setting(
        0.0, "beta_t, below which a step is left as it is.", minimum=0, below=1
    )
    start: float = setting(
        0.78, "Share of the noise schedule from which on steps are repelled.", minimum=0, below=1
    )
    count: int = setting(512, "Most unsafe pictures.", minimum=1)


def unsafe_mean(
    z_t: torch.Tensor, pictures: torch.Tensor, a: torch.Tensor, s: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_unsafe (B, C, H, W) of equation 6, and beta (B,).

    q_n = exp(-|z_t - a x_n|^2 / 2 s^2). x_unsafe is sum q_n x_n / sum q_n. The likelihood of a
    latent of d values under- or overflows, and the paper leaves its scale to eta: beta here is the
    mean of q_n^(1/d), which lies in (0, 1].

    Args:
        z_t: noised latents (B, C, H, W).
        pictures: clean latents x_n of unsafe pictures (N, C, H, W).
        a, s: signal and noise of the level, scalars.
    """
    distances = torch.cdist(z_t.flatten(1), a * pictures.flatten(1))  # (B, N)
    logarithms = -distances.square() / (2 * s.square())
    mean = logarithms.softmax(dim=1) @ pictures.flatten(1)
    beta = (logarithms / z_t[0].numel()).exp().mean(dim=1)
    return mean.view_as(z_t), beta


def repelled(clean: torch.Tensor, unsafe: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x + w (x - x_unsafe) (equations 4 and 7); latents (B, C, H, W), weights (B,)."""
    moved: torch.Tensor = clean + weight.view(-1, 1, 1, 1) * (clean - unsafe)
    return moved


class UnsafePictures(Protocol):
    """Source of unsafe pictures."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What identifies the pictures, as JSON values."""

    def latents(self, pipeline: Any, count: int) -> torch.Tensor:
        """Clean latents (N, C, H, W) of at most ``count`` pictures."""


@dataclass(frozen=True)
class FromFile:
    """Unsafe pictures of a file that ``safegen triplets`` wrote."""

    path: Path

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``UnsafePictures``."""
        return {"file_hash": file_hash(self.path)}

    def latents(self, pipeline: Any, count: int) -> torch.Tensor:
        """See ``UnsafePictures``."""
        tensors, metadata = SCHEMA.read(self.path)
        if metadata["vae"] != fingerprint(pipeline.vae):
            raise SafegenError(
                f"{self.path}: encoded with another autoencoder than this model's; encode the "
                "pictures again with 'safegen triplets'"
            )
        return tensors["unsafe"][:count]


@dataclass(frozen=True)
class FromConcept:
    """Unsafe pictures of the concept's own triplets, which edits train on."""

    spec: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``UnsafePictures``."""
        return {"triplets": self.spec, **create_triplets(self.spec).describe()}

    def latents(self, pipeline: Any, count: int) -> torch.Tensor:
        """See ``UnsafePictures``."""
        pairs = islice(create_triplets(self.spec).pairs(), count)
        return encode_pictures(pipeline.vae, [pair.unsafe for pair in pairs])


@dataclass(frozen=True)
class SafeDenoiser(Defense):
    """Repulsion from unsafe pictures.

    Attributes:
        pictures: source of the unsafe pictures.
        settings: settings of the repulsion.
    """

    pictures: UnsafePictures
    settings: SafeDenoiserSettings
    _known: dict[str, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)
    """Latents by the autoencoder's fingerprint, since attacks take a defense off and on again."""

    changes = "sampling"

    @property
    def identity(self) -> DefenseIdentity:
        """See ``Defense.identity``."""
        told = {**asdict(self.settings), "pictures": dict(self.pictures.identity)}
        return DefenseIdentity("safe-denoiser", told)

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``."""
        check_steerable(pipeline, "safe-denoiser")
        vae = fingerprint(pipeline.vae)
        if vae not in self._known:
            self._known[vae] = self.pictures.latents(pipeline, self.settings.count)
        latents = self._known[vae]
        shape = family_of(pipeline).latent_shape(pipeline)
        if tuple(latents.shape[1:]) != shape:
            raise SafegenError(
                f"safe-denoiser: the unsafe latents are {tuple(latents.shape[1:])}, and the "
                f"model's {shape}; encode the pictures with 'safegen triplets' and name the file"
            )
        guard = _Guard(self.settings, latents, pipeline)
        with ExitStack() as undo:
            undo.callback(on_encode_prompt(pipeline, guard.begin))
            hook = denoiser_of(pipeline).register_forward_hook(guard.repel, with_kwargs=True)
            undo.callback(hook.remove)
            return undo.pop_all().close


class _Guard:
    """Hooks of one pipeline."""

    def __init__(
        self, settings: SafeDenoiserSettings, pictures: torch.Tensor, pipeline: Any
    ) -> None:
        self.settings = settings
        self.pictures = pictures
        self.pipeline = pipeline
        self.count = 0
        """Pictures of the call under way; 0 outside of calls."""
        self.step = 0

    def begin(self, arguments: dict[str, Any]) -> None:
        """Reset the state; runs when the pipeline encodes its prompt."""
        given: Any = arguments["prompt"]
        if given is None:
            given = arguments["prompt_embeds"]
        prompts = 1 if isinstance(given, str) else len(given)
        self.count, self.step = prompts * arguments["num_images_per_prompt"], 0

    def repel(
        self, _module: Any, args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Move the predictions of all rows by that of each picture's first row."""
        if not self.count:
            return output
        moved = self._moved(args[0], args[1], output[0])
        self.step += 1
        if self.step >= self.pipeline.num_timesteps:
            self.count = 0
        return with_sample(output, moved)

    def _moved(
        self, sample: torch.Tensor, timestep: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        settings, scheduler = self.settings, self.pipeline.scheduler
        # Some samplers' timesteps lie between those of the schedule.
        time = timestep.reshape(-1)[:1].round().long()
        if time < settings.start * scheduler.config.num_train_timesteps:
            return output
        kind, (a, s) = prediction_of(scheduler), signal_and_noise(scheduler, time)
        z_t = sample[: self.count].float()  # all halves denoise the same latents
        pictures = self.pictures.to(z_t.device)
        unsafe, beta = unsafe_mean(z_t, pictures, a, s)
        weight = settings.eta * torch.where(beta < settings.threshold, 0.0, beta)
        first = clean_latent(output[: self.count].float(), z_t, a, s, kind)
        change = repelled(first, unsafe, weight) - first
        halves = len(output) // self.count
        z_t, change = z_t.repeat(halves, 1, 1, 1), change.repeat(halves, 1, 1, 1)
        clean = clean_latent(output.float(), z_t, a, s, kind)
        moved = output_for(clean + change, z_t, a, s, kind).to(output.dtype)
        return torch.where(weight.repeat(halves).view(-1, 1, 1, 1) > 0, moved, output)


@register("safe-denoiser")
@takes(SafeDenoiserSettings)
def safe_denoiser(
    triplets: str | None = None, *, concept: Concept | None = None, **options: Any
) -> SafeDenoiser:
    """Repulsion from the unsafe pictures of a triplets file (default: the concept's own).

    Raises:
        SafegenError: no file is given and the concept has no triplets.
    """
    settings = SafeDenoiserSettings(**options)
    if triplets is not None:
        return SafeDenoiser(FromFile(Path(triplets)), settings)
    if concept is None or concept.triplets is None:
        raise SafegenError(
            "safe-denoiser has to be told which pictures are unsafe; name a file that 'safegen "
            "triplets' wrote: safe-denoiser:FILE"
        )
    return SafeDenoiser(FromConcept(concept.triplets), settings)
