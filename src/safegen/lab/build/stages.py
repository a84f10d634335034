"""Stages of the lab's build; each writes its result to the work folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPModel, CLIPTokenizer

from safegen.checkpoints import load_state, save_state
from safegen.errors import SafegenError
from safegen.files import folder_atomically
from safegen.lab.build import autoencoder, clip, diffusion, recognition
from safegen.lab.build.assemble import assemble
from safegen.lab.build.scenes import SceneArrays, load_or_draw
from safegen.lab.build.training import Average, Progress, Schedule
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.shapes import compose, draw_shapes
from safegen.lab.world.world import SAFE_WORLD, Mixture


@dataclass(frozen=True)
class BuildSettings:
    """Sizes and seeds of the whole build.

    Attributes:
        scenes: scenes of the full world, for CLIP, the autoencoder and the recognisers.
        unet_scenes: number of these scenes that the UNet is trained on.
        safe_scenes: scenes of the world without unsafe ones.
        shapes: scenes in parts, for the judge of outlines and the classifier of places.
        clip, autoencoder, decoder, classifier, detector, outlines, places, safe_unet, unet:
            schedule of each training; both detectors have the same.
        seed: seed of every random draw.
    """

    scenes: int = 40_000
    unet_scenes: int = 24_000
    safe_scenes: int = 12_000
    shapes: int = 4000
    clip: Schedule = Schedule(steps=600, learning_rate=1e-3, batch=256)
    autoencoder: Schedule = Schedule(steps=2200, learning_rate=2e-3, batch=12)
    decoder: Schedule = Schedule(steps=1000, learning_rate=1e-3, batch=12)
    classifier: Schedule = Schedule(steps=1200, learning_rate=2e-3, batch=64)
    detector: Schedule = Schedule(steps=2500, learning_rate=2e-3, batch=64)
    outlines: Schedule = Schedule(steps=2600, learning_rate=3e-3, batch=64, decay=0.6)
    places: Schedule = Schedule(steps=500, learning_rate=3e-3, batch=64)
    safe_unet: Schedule = Schedule(steps=2000, learning_rate=8e-4, batch=32, decay=0.0)
    unet: Schedule = Schedule(steps=12_000, learning_rate=8e-4, batch=32, decay=0.3)
    seed: int = 20240406


STAGES = (
    "clip",
    "autoencoder",
    "decoder",
    "classifier",
    "detector",
    "second-detector",
    "outlines",
    "places",
    "safe-unet",
    "unet",
)
"""Stages in order; each needs those before it."""


class LabBuild:
    """Build of the lab in ``folder``, which resumes interrupted stages."""

    def __init__(self, folder: Path, settings: BuildSettings | None = None) -> None:
        self.folder = folder
        self.settings = settings or BuildSettings()

    def scenes(self) -> SceneArrays:
        """Training scenes of the full world."""
        return self._scenes("scenes", Mixture(), self.settings.scenes, self.settings.seed)

    def safe_scenes(self) -> SceneArrays:
        """Training scenes of the world without unsafe ones."""
        count, seed = self.settings.safe_scenes, self.settings.seed + 1
        return self._scenes("safe_scenes", SAFE_WORLD, count, seed)

    def tokenizer(self) -> CLIPTokenizer:
        """Tokenizer, learned from the captions on first use."""
        folder = self.folder / "tokenizer"
        if not folder.exists():
            captions = self.scenes().captions
            with folder_atomically(folder) as temporary:
                clip.build_tokenizer(captions, temporary)
        return CLIPTokenizer.from_pretrained(folder)

    def run(self, stage: str) -> Iterator[Progress]:
        """Run one of ``STAGES``."""
        if stage not in STAGES:
            raise SafegenError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
        yield from getattr(self, f"build_{stage.replace('-', '_')}")()

    def build_clip(self) -> Iterator[Progress]:
        """Train CLIP; writes ``clip/``."""
        torch.manual_seed(self.settings.seed)
        tokenizer, scenes = self.tokenizer(), self.scenes()
        model = CLIPModel(clip.clip_config(tokenizer))
        tokens = clip.tokenize(tokenizer, scenes.captions)
        yield from clip.train_clip(
            model, tokens, scenes, self.settings.clip, self._checkpoint("clip"), self.settings.seed
        )
        with folder_atomically(self.folder / "clip") as temporary:
            model.save_pretrained(temporary)

    def build_autoencoder(self) -> Iterator[Progress]:
        """Train the autoencoder; writes ``vae/``."""
        torch.manual_seed(self.settings.seed)
        model, scenes = autoencoder.new_autoencoder(), self.scenes()
        average = Average(model, 0.995)
        yield from autoencoder.train_autoencoder(
            model,
            scenes,
            self.settings.autoencoder,
            self._checkpoint("vae"),
            self.settings.seed,
            average,
        )
        model.load_state_dict(average.weights)
        factor = autoencoder.measure_scaling_factor(model, scenes)
        model.register_to_config(scaling_factor=factor)
        with folder_atomically(self.folder / "vae") as temporary:
            model.save_pretrained(temporary)

    def build_decoder(self) -> Iterator[Progress]:
        """Train the autoencoder's decoder further; replaces ``vae/``."""
        model = AutoencoderKL.from_pretrained(self.folder / "vae")
        average = Average(model, 0.995)
        yield from autoencoder.refine_decoder(
            model,
            self.scenes(),
            self.settings.decoder,
            self._checkpoint("decoder"),
            self.settings.seed + 5,
            average,
        )
        model.load_state_dict(average.weights)
        with folder_atomically(self.folder / "vae") as temporary:
            model.save_pretrained(temporary)

    def build_classifier(self) -> Iterator[Progress]:
        """Train the object classifier; writes ``classifier.onnx``."""
        torch.manual_seed(self.settings.seed)
        model, data = recognition.Classifier(), self._scene_data(self.scenes(), "rendered")
        yield from recognition.train_classifier(
            model,
            data,
            self.settings.classifier,
            self._checkpoint("classifier"),
            self.settings.seed + 2,
        )
        recognition.export_onnx(model, self.folder / "classifier.onnx", ["scores"])

    def build_detector(self) -> Iterator[Progress]:
        """Train the weapon detector; writes ``detector.onnx``."""
        data = self._scene_data(self.scenes(), "rendered")
        yield from self._train_detector("detector", data, self.settings.seed)

    def build_second_detector(self) -> Iterator[Progress]:
        """Train a second detector alike on other scenes; writes ``second_detector.onnx``."""
        seed = self.settings.seed + 6
        scenes = self._scenes("second_scenes", Mixture(), self.settings.scenes, seed)
        data = self._scene_data(scenes, "second_rendered")
        yield from self._train_detector("second_detector", data, seed)

    def build_outlines(self) -> Iterator[Progress]:
        """Train the judge of outlines on shapes alone; writes ``outlines.onnx``."""
        torch.manual_seed(self.settings.seed)
        model = recognition.Classifier(blocks=recognition.OUTLINE_BLOCKS)
        yield from self._train_on_shapes("outlines", "objects", model, self.settings.outlines)

    def build_places(self) -> Iterator[Progress]:
        """Train the classifier of places on shapes; writes ``places.onnx``."""
        torch.manual_seed(self.settings.seed)
        model = recognition.Classifier(len(BACKGROUNDS), recognition.PLACE_BLOCKS, whole=True)
        yield from self._train_on_shapes("places", "places", model, self.settings.places)

    def build_safe_unet(self) -> Iterator[Progress]:
        """Train a UNet on the world without unsafe scenes; writes ``unet_filtered/``."""
        torch.manual_seed(self.settings.seed)
        unet = diffusion.new_unet()
        average = Average(unet, 0.999)
        yield from self._train_unet("safe_scenes", unet, average, self.settings.safe_unet)
        self._save_unet(unet, average, "unet_filtered")

    def build_unet(self) -> Iterator[Progress]:
        """Train the safe UNet's raw weights further on the full world; writes ``unet/``."""
        unet = diffusion.new_unet()
        unet.load_state_dict(load_state(self._checkpoint("safe_scenes"))["module"])
        average = Average(unet, 0.999)
        yield from self._train_unet("scenes", unet, average, self.settings.unet)
        self._save_unet(unet, average, "unet")

    def assemble(self, destination: Path) -> None:
        """Write the lab's weights folder from the finished stages."""
        assemble(self.folder, destination)

    def _train_unet(
        self, world: str, unet: UNet2DConditionModel, average: Average, schedule: Schedule
    ) -> Iterator[Progress]:
        latents, embeddings, empty = self._latents(world)
        yield from diffusion.train_unet(
            unet,
            latents,
            embeddings,
            empty,
            schedule,
            self._checkpoint(world),
            self.settings.seed + 4,
            average,
        )

    def _save_unet(self, unet: UNet2DConditionModel, average: Average, name: str) -> None:
        unet.load_state_dict(average.weights)
        with folder_atomically(self.folder / name) as temporary:
            unet.save_pretrained(temporary)

    def _latents(self, world: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return latents, text embeddings and the empty text's embedding, computed on first use."""
        path = self.folder / f"{world}.safetensors"
        if not path.exists():
            scenes = self.scenes() if world == "scenes" else self.safe_scenes()
            tokenizer = self.tokenizer()
            text_model = CLIPModel.from_pretrained(self.folder / "clip")
            vae = AutoencoderKL.from_pretrained(self.folder / "vae")
            count = min(len(scenes), self.settings.unet_scenes)
            tokens = clip.tokenize(tokenizer, ["", *scenes.captions[:count]])
            embeddings = diffusion.embed_texts(text_model, tokens)
            latents = autoencoder.encode(vae, scenes, count)
            save_state(path, {"latents": latents, "embeddings": embeddings})
        state = load_state(path)
        return state["latents"], state["embeddings"][1:], state["embeddings"][0].float()

    def _train_detector(
        self, name: str, data: recognition.HalfRendered, seed: int
    ) -> Iterator[Progress]:
        torch.manual_seed(seed)
        model, schedule = recognition.Detector(), self.settings.detector
        checkpoint = self._checkpoint(name)
        yield from recognition.train_detector(model, data, schedule, checkpoint, seed + 3)
        recognition.export_onnx(model, self.folder / f"{name}.onnx", ["scores", "boxes"])

    def _scene_data(self, scenes: SceneArrays, cache: str) -> recognition.HalfRendered:
        vae = AutoencoderKL.from_pretrained(self.folder / "vae")
        examples = recognition.SceneExamples(scenes)
        return recognition.HalfRendered(len(scenes), examples, vae, self._checkpoint(cache))

    def _train_on_shapes(
        self, name: str, labels: str, model: recognition.Classifier, schedule: Schedule
    ) -> Iterator[Progress]:
        """Train a classifier on shapes, weathered if it learns places; writes its ONNX."""
        count, seed = self.settings.shapes, self.settings.seed + 7
        shapes = draw_shapes(count, Mixture(), "train", seed)
        data = recognition.HalfRendered(
            count,
            lambda rows, generator: compose(shapes, rows, generator)._asdict(),
            AutoencoderKL.from_pretrained(self.folder / "vae"),
            self._checkpoint("rendered_shapes"),
            recognition.RENDERED_SHAPES,
        )
        yield from recognition.train_classifier(
            model, data, schedule, self._checkpoint(name), seed, labels, labels == "places"
        )
        recognition.export_onnx(model, self.folder / f"{name}.onnx", ["scores"])

    def _checkpoint(self, stage: str) -> Path:
        return self.folder / "checkpoints" / f"{stage}.safetensors"

    def _scenes(self, name: str, mixture: Mixture, count: int, seed: int) -> SceneArrays:
        return load_or_draw(self.folder / name, mixture, "train", count, seed)
