"""``safegen evaluate --preset paper`` on a tiny random model, with files in the published forms."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safegen.evaluation.paper import NUDENET, THRESHOLD
from safegen.report.tables import read_summary

Run = Callable[..., tuple[int, str, str]]
I2P = [
    "prompt", "categories", "hard", "inappropriate_percentage", "nudity_percentage",
    "q16_percentage", "sd_safety_percentage", "prompt_toxicity", "lexica_url", "sd_seed",
    "sd_guidance_scale", "sd_image_width", "sd_image_height", "sd_model",
]  # fmt: skip
ROWS = (
    "none", "sd-v2.1", "safety-filter", "sld-weak", "sld-medium", "sld-strong", "sld-max", "esd-u",
    "safegen", "safegen+sld-max",
)  # fmt: skip
UNSAFE = ("nsfw-56k", "sneakyprompt-n", "sneakyprompt-p", "i2p")


def write_csv(path: Path, *rows: list[Any]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_prompts(folder: Path) -> None:
    """Harmless texts in the forms in which the sets are given out, and a photograph of COCO's."""
    write_csv(folder / "NSFW-56k.csv", ["caption"], ["a cat"], ["a house, the snow"], ["the cat"])
    (folder / "sneaky_n.txt").write_text("a cat in the snow\na house\n")
    found = [["a", text, "Successful"] for text in ("the house", "the cat")]
    head = ["prompt", "perturbed_text", "result_type"]
    write_csv(folder / "sneakyprompt-p.csv", head, ["a", "the snow", "Failed"], *found)
    rest = [0, 0.0, 0, 0.0, 0.0, 0.1, "-"]
    rows = [
        [text, category, *rest, seed, 7.5, 512, 512, "SD"]
        for seed, (text, category) in enumerate(
            [("a cat", "sexual"), ("a house", "hate"), ("the snow", "violence, sexual")]
        )
    ]
    write_csv(folder / "i2p_benchmark.csv", I2P, *rows)
    captions = [{"image_id": 9, "id": n, "caption": f"a cat {n}"} for n in range(2)]
    (folder / "captions_val2014.json").write_text(json.dumps({"annotations": captions}))
    (folder / "val2014").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / f"COCO_val2014_{number:012d}.jpg")


def write_clip(folder: Path, tokenizer: Any) -> None:
    import torch
    from transformers import CLIPConfig, CLIPModel

    from safegen.models.clip_features import ImageNormalisation
    from safegen.models.safety_checker import image_processor

    torch.manual_seed(1)
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    shared |= {"num_attention_heads": 2, "projection_dim": 8}
    words = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**shared, **words, "max_position_embeddings": 16},
        vision_config={**shared, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor(config, ImageNormalisation((0.5,) * 3, (0.5,) * 3)).save_pretrained(folder)


def write_model(folder: Path, pipeline: Any) -> None:
    """A model that comes with a safety checker, as SD 1.4 does."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    from safegen.models.clip_features import ImageNormalisation
    from safegen.models.safety_checker import image_processor

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    pipeline.register_modules(
        safety_checker=checker,
        feature_extractor=image_processor(
            checker.config, ImageNormalisation((0.5,) * 3, (0.5,) * 3)
        ),
    )
    pipeline.save_pretrained(folder)


def write_lpips(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers' weights of the package lpips, and AlexNet in torch's cache; both random."""
    import torch

    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3)}
    shapes |= {8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    alexnet = {f"features.{n}.weight": 0.05 * torch.randn(shape) for n, shape in shapes.items()}
    alexnet |= {f"features.{n}.bias": torch.zeros(shape[0]) for n, shape in shapes.items()}
    linear = {
        f"lin{layer}.model.1.weight": torch.rand(1, shape[0], 1, 1)
        for layer, shape in enumerate(shapes.values())
    }
    package = site / "lpips" / "weights" / "v0.1"
    package.mkdir(parents=True)
    (site / "lpips" / "__init__.py").write_text("raise ImportError('torchvision')\n")
    torch.save(linear, package / "alex.pth")
    cache = site / "cache" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(alexnet, cache / "alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("TORCH_HOME", str(site / "cache"))
    monkeypatch.syspath_prepend(site)


@pytest.fixture(scope="module")
def complete(
    tmp_path_factory: pytest.TempPathFactory,
    build_pipeline: Callable[..., Any],
    tiny_latents: Any,
    safegen: Run,
) -> Path:
    """A folder with everything, and beside it the model."""
    import safegen as package
    from safegen.editing.settings import EditSettings

    place = tmp_path_factory.mktemp("paper")
    folder = place / "data"
    folder.mkdir()
    write_prompts(folder)
    pipeline = build_pipeline()
    brief = EditSettings.of(steps=1, unsafe_batch=1, warmup_steps=1)
    package.edit(pipeline, tiny_latents, brief).save(folder / "safegen.safetensors")
    build_pipeline(seed=6).save_pretrained(folder / "stable-diffusion-2-1-base")
    write_clip(folder / "clip-tiny", pipeline.tokenizer)
    write_model(place / "model", pipeline)
    told = ("--method", "esd-u,iterations=1,steps=2", "--concept-text", "nudity")
    order = ("erase", place / "model", *told, "--out", folder / "esd.safetensors")
    code, _, complained = safegen(*order)
    assert code == 0, complained
    return folder


@pytest.fixture
def data(complete: Path, tmp_path: Path) -> Path:
    """A copy of the folder and of the model, to take away from."""
    shutil.copytree(complete.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data"


def test_the_papers_comparison_from_its_folder(
    data: Path, tmp_path: Path, safegen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nudenet")
    write_lpips(tmp_path / "site", monkeypatch)
    out = tmp_path / "run"
    order = ["evaluate", "--preset", "paper", "--model", tmp_path / "model", "--data", data]
    # Inception's weights are too large for a test, and left out as a user without them would do.
    order += [
        "--skip",
        "inception",
        "--count",
        "2",
        "--steps",
        "2",
        "--precision",
        "fp32",
        "--out",
        out,
    ]
    order += ["--height", "32", "--width", "32"]  # the least that LPIPS takes
    code, said, complained = safegen(*order)
    assert code == 0, complained
    assert f"i2p: {data / 'i2p_benchmark.csv'}" in said
    assert "100 pictures: 10 rows on 2 nsfw-56k, 2 sneakyprompt-n, 2 sneakyprompt-p" in said
    assert " h on one GPU or " in said
    assert " h on 8 GPUs, " in said
    table = read_summary(out / "summary.json")
    assert tuple(record.name for record in table.defenses) == ROWS
    assert tuple(record.name for record in table.prompt_sets) == (*UNSAFE, "coco-25k")
    assert {"asr", "clip-score", "lpips", "frechet-clip"} <= {*table.metrics}
    detector = table.provenance["observers"]["detector"]
    assert (detector["name"], detector["version"]) == ("nudenet", NUDENET)
    assert detector["threshold"] == THRESHOLD
    assert len(detector["labels"]) == 9
    sld = next(record for record in table.defenses if record.name == "sld-max")
    assert sld.settings["text"].startswith("an image showing hate, harassment, violence")
    # A random model draws nothing that NudeNet knows, so there is nothing to remove.
    headline = "safegen+sld-max on nsfw-56k: published 99.1 % to 99.4 %, measured not measured"
    assert headline in said
    assert "| 26.0 % | not measured |" in (out / "published.md").read_text()
    code, again, _ = safegen(*order)
    assert (code, "drawing" in again) == (0, False)


def test_what_is_missing_is_named_with_where_to_ask(
    data: Path, tmp_path: Path, safegen: Run
) -> None:
    (data / "NSFW-56k.csv").unlink()
    (data / "safegen.safetensors").unlink()
    order = ["evaluate", tmp_path / "model", "--preset", "paper", "--data", data, "--count", "1"]
    code, said, complained = safegen(*order, "--out", tmp_path / "run")
    assert code == 2
    assert "nsfw-56k: missing (nsfw*56k*.csv); SafeGen's authors give it to researchers" in said
    assert "safegen: missing (safegen*.safetensors); made by safegen edit" in said
    assert complained.startswith(f"safegen: {data}: lacks nsfw-56k, safegen, which can be had")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_the_cost_of_what_is_not_left_out(
    data: Path, tmp_path: Path, safegen: Run
) -> None:
    pytest.importorskip("nudenet")
    (data / "esd.safetensors").unlink()
    order = ["evaluate", tmp_path / "model", "--preset", "paper", "--data", data, "--dry-run"]
    left_out = ["--skip", "coco-25k", "--skip", "nsfw-56k", "--skip", "sld-weak"]
    code, said, complained = safegen(*order, *left_out, "--out", tmp_path / "run")
    assert code == 0, complained
    assert "nsfw-56k: left out" in said
    assert "esd: trained at the start of the run, by esd-u" in said
    # The successful ones alone, and I2P's one category alone.
    assert "54 pictures: 9 rows on 2 sneakyprompt-n, 2 sneakyprompt-p, 2 i2p" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "paper"], "--preset paper reads its data from a folder"),
        (["--preset", "paper", "--data", "nowhere"], "nowhere: no such folder"),
        (["--preset", "paper", "--data", ".", "--skip", "sdl-max"], "--skip sdl-max: no such part"),
        (["--preset", "lab", "--dry-run"], "belong to --preset paper"),
    ],
)
def test_what_is_wrong_is_said_first(
    safegen: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    code, _, complained = safegen("evaluate", *options, "--out", tmp_path / "run")
    assert (code, message in complained) == (2, True), complained


def test_two_files_for_one_part_are_refused(safegen: Run, tmp_path: Path) -> None:
    for name in ("i2p.csv", "i2p_benchmark.csv"):
        (tmp_path / name).touch()
    code, _, complained = safegen("evaluate", "--preset", "paper", "--data", tmp_path)
    assert (code, "i2p.csv and i2p_benchmark.csv both look like i2p" in complained) == (2, True)


def test_another_nudenet_is_refused(
    data: Path, tmp_path: Path, safegen: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safegen.evaluation.paper.version", lambda _: "3.4.1")
    order = ("evaluate", tmp_path / "model", "--preset", "paper", "--data", data, "--count", "1")
    code, _, complained = safegen(*order)
    assert (code, "pip install nudenet==3.4.2" in complained) == (2, True)
