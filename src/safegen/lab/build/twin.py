"""Build of the lab's twin: its UNet fine-tuned to predict velocities down to no signal at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer

from safegen.checkpoints import load_state, save_state
from safegen.files import folder_atomically
from safegen.lab import weights_folder
from safegen.lab.build import autoencoder, clip, diffusion
from safegen.lab.build.assemble import tidy
from safegen.lab.build.network_settings import TWIN, NetworkSettings
from safegen.lab.build.scenes import load_or_draw
from safegen.lab.build.training import Average, Progress, Schedule
from safegen.lab.world.world import Mixture


class TwinBuild:
    """Build in ``folder`` from the shipped lab, which resumes where it was interrupted.

    The twin is for trials of other kinds of prediction, and is not shipped.
    """

    def __init__(self, folder: Path, settings: NetworkSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or NetworkSettings.of(**TWIN)

    def train(self) -> Iterator[Progress]:
        """Fine-tune the UNet; writes ``unet/``."""
        settings, parts = self.settings, self._encoded()
        unet = UNet2DConditionModel.from_pretrained(weights_folder() / "unet")
        unet.train()
        average = Average(unet, settings.average_decay)
        yield from diffusion.train_unet(
            unet,
            parts["latents"],
            parts["embeddings"][1:],
            parts["embeddings"][0].float(),
            Schedule(
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                batch=settings.batch,
                warmup=min(200, settings.steps // 10),
                decay=0.4,
            ),
            self.folder / "checkpoints" / f"twin-{settings.seed}.safetensors",
            settings.seed,
            average,
            diffusion.twin_scheduler(),
            settings.caption_dropout,
        )
        unet.load_state_dict(average.weights)
        with folder_atomically(self.folder / "unet") as temporary:
            unet.save_pretrained(temporary)

    def assemble(self, destination: Path) -> None:
        """Write the complete pipeline, in half precision."""
        pipeline = StableDiffusionPipeline.from_pretrained(
            weights_folder(),
            unet=UNet2DConditionModel.from_pretrained(self.folder / "unet"),
            scheduler=diffusion.twin_scheduler(),
        )
        with folder_atomically(destination) as folder:
            pipeline.to(torch.float16).save_pretrained(folder)
            for config in folder.glob("*/config.json"):
                tidy(config)

    def _encoded(self) -> dict[str, torch.Tensor]:
        """Latents (N, 4, 16, 16) of the scenes, and embeddings (N + 1, 32, 128) of their captions
        after the empty one, computed on first use."""
        count, seed = self.settings.scenes, self.settings.seed
        path = self.folder / f"encoded-{seed}-{count}.safetensors"
        if not path.exists():
            scenes = load_or_draw(
                self.folder / f"scenes-{seed}-{count}", Mixture(), "train", count, seed
            )
            tokenizer = CLIPTokenizer.from_pretrained(weights_folder() / "tokenizer")
            tokens = clip.tokenize(tokenizer, ["", *scenes.captions])
            text = CLIPModel.from_pretrained(weights_folder() / "clip", dtype=torch.float32)
            vae = AutoencoderKL.from_pretrained(weights_folder() / "vae")
            latents = autoencoder.encode(vae, scenes, count)
            embeddings = diffusion.embed_texts(text.eval(), tokens)
            save_state(path, {"latents": latents, "embeddings": embeddings})
        found: dict[str, torch.Tensor] = load_state(path)
        return found
