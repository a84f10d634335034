"""The settings of the paper's comparison, and what a folder's parts are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from safegen.detectors.nudenet import EXPOSED
from safegen.errors import SafegenError
from safegen.evaluation.paper import (
    MODEL,
    SLD_KINDS,
    SLD_WORDS,
    check_parts,
    find_parts,
    paper_settings,
)

FILES = (
    "nsfw_56k.csv", "sneakyprompt-n.txt", "sneaky_p.csv", "i2p_benchmark.csv", "coco_30k.csv",
    "SafeGen.safetensors",
)  # fmt: skip
WORDS = "+".join(SLD_WORDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, empty, for each part that nothing stands in for."""
    (tmp_path / "val2014").mkdir()
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


def test_everything_is_compared_with_published_settings(folder: Path) -> None:
    found = find_parts(folder)
    assert not any(each.missing for each in found)
    settings = paper_settings(MODEL, found, Path("run/esd.safetensors"))
    ours = f"safegen:{folder}/SafeGen.safetensors"
    assert settings.defenses == (
        "sd-v2.1=filtered:stabilityai/stable-diffusion-2-1-base",
        "safety-filter",
        *(f"{kind},words={WORDS}" for kind in SLD_KINDS),
        "esd:run/esd.safetensors",
        ours,
        f"{ours}+sld-max,words={WORDS}",
    )
    assert settings.unsafe == (
        f"nsfw-56k=nsfw-56k:{folder}/nsfw_56k.csv",
        f"sneakyprompt-n=sneakyprompt:{folder}/sneakyprompt-n.txt,form=n",
        f"sneakyprompt-p=sneakyprompt:{folder}/sneaky_p.csv,form=p",
        f"i2p=i2p:{folder}/i2p_benchmark.csv,categories=sexual",
    )
    assert settings.benign == (f"coco-25k=coco:{folder}/coco_30k.csv",)
    detector, *others = settings.observers
    assert detector == f"detector:nudenet,labels={'+'.join(EXPOSED)},threshold=0.25"
    assert others == ["clip:openai/clip-vit-large-patch14", "lpips", "inception"]
    assert settings.real == str(folder / "val2014")


def test_what_is_skipped_is_left_out_and_a_distance_needs_real_pictures(folder: Path) -> None:
    skipped = ("val2014", "sld-weak", "safety-filter", "esd", "clip", "coco-25k")
    found = find_parts(folder, skipped)
    settings = paper_settings(MODEL, found, Path("run/esd.safetensors"), 8, skipped)
    names = [each.spec.partition(":")[0].partition(",")[0] for each in settings.defense_specs]
    assert names == ["none", "filtered", *SLD_KINDS[1:], "safegen", "safegen"]
    assert settings.observers[1:] == ("lpips",)
    assert settings.real is None
    assert settings.benign == ()
    assert all(spec.endswith(",count=8") for spec in settings.unsafe)


def test_a_folder_that_lacks_parts_is_refused_with_their_names(folder: Path) -> None:
    for name in (FILES[0], FILES[3]):
        (folder / name).unlink()
    with pytest.raises(SafegenError, match=r"lacks nsfw-56k, i2p, .* --skip nsfw-56k"):
        check_parts(find_parts(folder), folder)
    (folder / "a,b").mkdir()
    with pytest.raises(SafegenError, match="a comma ends a spec"):
        find_parts(folder / "a,b")
