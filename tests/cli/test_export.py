from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from safegen.models.anatomy import denoiser_of, fingerprint, self_attention_names
from safegen.models.loading import load_pipeline
from safegen.patches.original_layout import save_single_file
from safegen.patches.patch import Patch, apply


@pytest.fixture
def export(safegen: Any) -> Any:
    """Runs ``safegen export`` and gives both outputs."""

    def run(*arguments: str | Path, fails: bool = False) -> tuple[str, str]:
        code, out, err = safegen("export", *arguments)
        assert code == 2 * fails, err
        return out, err

    return run


def random_patch(pipeline: Any, scale: float) -> Patch:
    """Random differences of all self-attention weights."""
    generator = torch.Generator().manual_seed(0)
    parameters = dict(denoiser_of(pipeline).named_parameters())
    differences = {
        name: scale * torch.randn(parameters[name].shape, generator=generator)
        for name in self_attention_names(denoiser_of(pipeline))
    }
    base = {"name": "tiny", "fingerprint": fingerprint(denoiser_of(pipeline))}
    return Patch(differences, {"base": base, "concept": "squares"})


@pytest.fixture(scope="module")
def patch_file(
    build_pipeline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A patch of the tiny pipeline."""
    path = tmp_path_factory.mktemp("patch") / "patch.safetensors"
    random_patch(build_pipeline(), 0.1).save(path)
    return path


@pytest.fixture
def hardened(tiny_pipeline: Any, patch_file: Path) -> Any:
    """The tiny pipeline with the patch."""
    return apply(tiny_pipeline, patch_file)


def same(first: Any, second: Any) -> bool:
    """Whether two networks have the same weights to the bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_diffusers(
    export: Any, tiny_folder: Path, patch_file: Path, hardened: Any, tmp_path: Path
) -> None:
    out = tmp_path / "hardened"
    export(tiny_folder, patch_file, "--format", "diffusers", "--out", out)
    assert same(StableDiffusionPipeline.from_pretrained(out).unet, hardened.unet)
    assert not (out / "README.md").exists()


def test_single_file(
    export: Any, tiny_folder: Path, patch_file: Path, hardened: Any, tmp_path: Path
) -> None:
    out = tmp_path / "hardened.safetensors"
    export(tiny_folder, patch_file, "--format", "single-file", "--out", out)
    read = StableDiffusionPipeline.from_single_file(
        str(out), config=str(tiny_folder), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder"):
        assert same(getattr(read, part), getattr(hardened, part))


def test_a_single_file_is_copied_but_for_the_patch(
    export: Any, tiny_folder: Path, tiny_pipeline: Any, patch_file: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "mine.safetensors", tmp_path / "hardened.safetensors"
    save_single_file(tiny_pipeline, source, {}, half=True)
    _, errors = export(
        source, patch_file, "--config", tiny_folder, "--format", "single-file", "--out", out
    )
    assert "made on" not in errors  # half precision is no other checkpoint
    before, after = load_file(source), load_file(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == len(Patch.load(patch_file).differences)
    assert all(".attn1." in name for name in changed)
    assert {value.dtype for value in after.values()} == {torch.float16}


def test_lora(export: Any, tiny_folder: Path, patch_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora.safetensors"
    output, errors = export(
        tiny_folder, patch_file, "--format", "lora", "--rank", "4", "--out", out, "--half"
    )
    assert "written: 4" in output
    assert "4 weights are no matrices and NOT in the LoRA" in errors
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder)
    pipeline.load_lora_weights(str(out))
    assert pipeline.get_active_adapters() == ["default_0"]
    assert all(name.startswith("lora_unet_down") for name in list(load_file(out))[:3])


def test_the_lab_shows_what_each_rank_removes(export: Any, tmp_path: Path) -> None:
    pipeline = load_pipeline("lab")
    whole = random_patch(pipeline, 0.3)
    name = next(iter(whole.differences))
    left, right = whole.differences[name][:, :2], whole.differences[name][:2]
    patch, out = tmp_path / "patch.safetensors", tmp_path / "lora.safetensors"
    Patch({name: left @ right}, whole.metadata).save(patch)
    output, _ = export(
        "lab", patch, "--format", "lora", "--max-megabytes", "0.01", "--measure", "1", "--out", out
    )
    for word in ("removal", "retention", "the patch itself", "written: 2"):
        assert word in output
    assert output.count("100 %") >= 1
    assert out.stat().st_size <= 10_000


def test_a_scaled_sum_as_one_patch(
    export: Any, tiny_folder: Path, patch_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sum.safetensors"
    export(
        tiny_folder, patch_file, patch_file, "--format", "patch", "--scale", "0.25", "--out", out
    )
    before, after = load_file(patch_file), load_file(out)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value / 2)


def test_a_finished_model_as_a_patch(
    export: Any, tiny_folder: Path, hardened: Any, tmp_path: Path
) -> None:
    finished, out = tmp_path / "finished.safetensors", tmp_path / "patch.safetensors"
    next(hardened.vae.parameters()).data += 1
    dict(hardened.unet.named_parameters())["conv_in.bias"].data += 1
    save_single_file(hardened, finished, {})
    given = ["--from", finished, "--config", tiny_folder, "--format", "patch", "--out", out]
    output, errors = export(tiny_folder, *given)
    outside = "weights of the denoiser differ, 1 of them outside self-attention (scope: all weights"
    assert outside in " ".join(output.split())
    assert "vae differs as well and is NOT in the patch" in errors
    restored = apply(StableDiffusionPipeline.from_pretrained(tiny_folder), out)
    assert same(restored.unet, hardened.unet)


def test_an_unknown_weight_is_not_passed_on(export: Any, tiny_folder: Path, tmp_path: Path) -> None:
    Patch({"other.weight": torch.ones(2)}).save(tmp_path / "other.safetensors")
    out = tmp_path / "sum.safetensors"
    given = [tiny_folder, tmp_path / "other.safetensors", "--format", "patch", "--out", out]
    assert "has no other.weight" in export(*given, fails=True)[1]
    assert not out.exists()


def test_no_input_is_written_over(export: Any, patch_file: Path) -> None:
    before = patch_file.read_bytes()
    given = ["lab", patch_file, "--format", "patch", "--scale", "2", "--out", patch_file]
    assert "is read by this command; name another path" in export(*given, fails=True)[1]
    assert patch_file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "patch", "--from", "x"], "--from x: takes the place of patches"),
        (["--format", "lora", "--max-megabytes", "nan"], "must be a finite number above 0"),
        (["--format", "diffusers", "--rank", "4"], "--rank: has no effect on --format diffusers"),
        (["--format", "lora", "--summary", "x"], "--summary: has no effect on --format lora"),
        (["--format", "patch", "--half"], "--half: has no effect on --format patch"),
        (["--format", "lora", "--rank", "4", "--energy", "1"], "each choose the rank"),
        (["--format", "lora", "--measure", "4"], "--measure is for the lab"),
        (["--format", "diffusers", "--license", "mit"], "give --summary as well"),
        (["--format", "diffusers", "--summary", "x", "--scale", "2"], "a sum or scaled"),
        (["--format", "single-file", "--out", "model.ckpt"], "written as safetensors"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    export: Any,
    arguments: list[str],
    message: str,
    tiny_folder: Path,
    patch_file: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.safetensors"
    given = arguments if "--out" in arguments else [*arguments, "--out", str(out)]
    _, errors = export(tiny_folder, patch_file, *given, fails=True)
    assert message in " ".join(errors.split())
    assert errors.strip().count("\n") == 0
    assert not out.exists()
