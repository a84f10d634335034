"""Build of ``lab-sd3``: the lab's autoencoder and CLIP, with a transformer of joint attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from safegen.checkpoints import load_state, save_state
from safegen.files import folder_atomically
from safegen.lab import weights_folder
from safegen.lab.build import autoencoder, clip
from safegen.lab.build.assemble import tidy
from safegen.lab.build.network_settings import NetworkSettings
from safegen.lab.build.rectified_flow import new_scheduler, new_transformer, train_transformer
from safegen.lab.build.scenes import load_or_draw
from safegen.lab.build.training import Average, Progress
from safegen.lab.world.world import Mixture


class JointBuild:
    """Build in ``folder`` from the shipped lab's parts, which resumes where it was interrupted."""

    def __init__(self, folder: Path, settings: NetworkSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or NetworkSettings()

    def train(self) -> Iterator[Progress]:
        """Train the transformer; writes ``transformer/``."""
        torch.manual_seed(self.settings.seed)
        transformer = new_transformer()
        average = Average(transformer, self.settings.average_decay)
        parts = self._encoded()
        yield from train_transformer(
            transformer,
            parts["latents"],
            parts["hidden"],
            parts["pooled"],
            self.settings,
            self.folder / "checkpoints" / f"transformer-{self.settings.seed}.safetensors",
            average,
        )
        transformer.load_state_dict(average.weights)
        with folder_atomically(self.folder / "transformer") as temporary:
            transformer.save_pretrained(temporary)

    def assemble(self, destination: Path) -> None:
        """Write the complete pipeline, in half precision."""
        vae = _autoencoder()
        vae.register_to_config(shift_factor=0.0)  # the pipeline adds it
        tokenizer = _tokenizer()
        pipeline = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel.from_pretrained(self.folder / "transformer"),
            scheduler=new_scheduler(),
            vae=vae,
            text_encoder=_text_encoder(),
            tokenizer=tokenizer,
            text_encoder_2=_text_encoder(),
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )
        with folder_atomically(destination) as folder:
            pipeline.to(torch.float16).save_pretrained(folder)
            for config in folder.glob("*/config.json"):
                tidy(config)

    def _encoded(self) -> dict[str, torch.Tensor]:
        """Latents (N, 4, 16, 16), hidden states (N + 1, 32, 128) and pooled features (N + 1, 128)
        of the scenes and their captions after the empty one, computed on first use."""
        count, seed = self.settings.scenes, self.settings.seed
        path = self.folder / f"encoded-{seed}-{count}.safetensors"
        if not path.exists():
            folder = self.folder / f"scenes-{seed}-{count}"
            scenes = load_or_draw(folder, Mixture(), "train", count, seed)
            tokens = clip.tokenize(_tokenizer(), ["", *scenes.captions])
            latents = autoencoder.encode(_autoencoder(), scenes, count)
            save_state(path, {"latents": latents, **_embedded(tokens)})
        found: dict[str, torch.Tensor] = load_state(path)
        return found


@torch.no_grad()
def _embedded(tokens: torch.Tensor, batch: int = 512) -> dict[str, torch.Tensor]:
    """Encode token ids as the pipeline does: the hidden states before the last layer, half."""
    encoder = _text_encoder()
    hidden, pooled = [], []
    for some in torch.split(tokens, batch):  # all layers' states of all texts would take gigabytes
        found = encoder(some, output_hidden_states=True)
        hidden.append(found.hidden_states[-2].half())
        pooled.append(found.text_embeds.half())
    return {"hidden": torch.cat(hidden), "pooled": torch.cat(pooled)}


def _text_encoder() -> CLIPTextModelWithProjection:
    folder = weights_folder() / "clip"
    return CLIPTextModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval()


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(weights_folder() / "tokenizer")


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(weights_folder() / "vae")
