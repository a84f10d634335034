"""Fine-tuning afterwards: its objective, its data, what stays on top, and that it is undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_targets
from safegen.attacks import Finding, Task, create_attack
from safegen.attacks._fine_tuning import FolderPictures, Lesson, training_loss
from safegen.attacks.relearn import Relearn, RelearnSettings
from safegen.attacks.target import Target
from safegen.defenses import defended
from safegen.detectors import Detection, create_detector
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import lab_prompts

TASKS = [Task(f"p{i}", f"a knife and a cat {i}", i, 3.0) for i in range(6)]
FEW = RelearnSettings(
    data="unsafe", steps=3, checks=(0, 1, 3), learning_rate=1e-3, batch=2, unsafe=2, probes=2
)


class Changed:
    """Flags every picture that the model did not draw before."""

    identity = create_detector("lab").identity

    def __init__(self) -> None:
        self.known: set[bytes] = set()

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        flags = [image.tobytes() not in self.known for image in images]
        return [[Detection("changed", 0.9)] if flag else [] for flag in flags]


target_of = partial(tiny_targets.target_of, examples=TASKS[2:], steps=3)


def strike(target: Target, attack: Relearn, tasks: list[Task] = TASKS[:2]) -> list[Finding]:
    return tiny_targets.strike(target, attack, tasks)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures, one with its caption."""
    rng = np.random.default_rng(0)
    for name, size in (("cat", (40, 30)), ("house", (16, 16))):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "cat.txt").write_text("a cat\n")
    return tmp_path


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_objective_is_the_models_own(
    build_pipeline: Callable[..., Any], prediction: str
) -> None:
    pipeline = build_pipeline(prediction_type=prediction)
    generator = torch.Generator().manual_seed(0)
    z_0 = torch.randn(1, 4, 8, 8, generator=generator)
    target = target_of(pipeline)
    text = target.embed(["a cat"])
    loss = training_loss(target, Lesson(z_0, text), 3, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    torch.randint(1, (3,), generator=generator)
    times = (torch.rand(3, generator=generator) * 1000).long()
    noise = torch.randn(3, 4, 8, 8, generator=generator)
    many = z_0.expand(3, -1, -1, -1)
    z_t = pipeline.scheduler.add_noise(many, noise, times)
    velocity = pipeline.scheduler.get_velocity(many, noise, times)
    wanted = noise if prediction == "epsilon" else velocity
    output = pipeline.unet(z_t, times, text.expand(3).hidden).sample
    expected = torch.nn.functional.mse_loss(output, wanted)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("defense", ["none", "filtered"])
def test_weights_are_trained_and_then_as_they_were(
    tiny_pipeline: Any, build_pipeline: Callable[..., Any], defense: str, tmp_path: Path
) -> None:
    if defense == "filtered":  # loaded again whenever it is put on
        build_pipeline(seed=3).unet.save_pretrained(tmp_path)
        defense = f"filtered:{tmp_path}"
    target = target_of(tiny_pipeline, defense)
    tiny_pipeline.unet.conv_in.requires_grad_(False)

    def interrupted() -> None:
        with Relearn(FEW).against(target):
            trained = tiny_pipeline.unet.state_dict()
            assert all(not torch.equal(trained[name], value) for name, value in before.items())
            raise KeyboardInterrupt

    with defended(tiny_pipeline, target.defense):
        before = {name: value.clone() for name, value in tiny_pipeline.unet.state_dict().items()}
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        after = tiny_pipeline.unet.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
    frozen = [n for n, p in tiny_pipeline.unet.named_parameters() if not p.requires_grad]
    assert frozen == ["conv_in.weight", "conv_in.bias"]
    assert all(p.grad is None for p in tiny_pipeline.unet.parameters())


def test_it_tells_after_how_many_steps_removal_was_lost(tiny_pipeline: Any) -> None:
    judge = Changed()
    target = target_of(tiny_pipeline, detector=judge)
    with defended(tiny_pipeline, "none"):
        judge.known = {each.image.tobytes() for each in target.draw(target.examples[2:4])}
    found = strike(target, Relearn(FEW))
    for each in found:
        assert each.details == {"shares": {"0": 0.0, "1": 1.0, "3": 1.0}, "lost_after": 1}
        assert (each.score, each.pictures, each.passes) == (0.9, 1, 3 * 3 * 2)
    (never, _) = strike(target, Relearn(replace(FEW, learning_rate=1e-12)))
    assert never.details == {"shares": {"0": 0.0, "1": 0.0, "3": 0.0}, "lost_after": None}


def test_the_defense_stays_on_top_and_what_is_drawn_is_the_goal(tiny_pipeline: Any) -> None:
    idle = Relearn(replace(FEW, steps=0, checks=()))
    pictures = {}
    for defense in ("none", "negative-prompt"):
        target = target_of(tiny_pipeline, defense)
        with defended(tiny_pipeline, target.defense):
            plain = [sample.image for sample in target.draw(TASKS[:2])]
        same = [each.image for each in strike(target, idle)]
        assert all(np.array_equal(a, b) for a, b in zip(same, plain, strict=True))
        pictures[defense] = [each.image for each in strike(target, Relearn(FEW))]
        assert not any(np.array_equal(a, b) for a, b in zip(same, pictures[defense], strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(*pictures.values(), strict=True))


def test_unsafe_data_comes_from_the_undefended_model(tiny_pipeline: Any) -> None:
    """Guidance of the defense plays no part in training."""
    trained = []
    for defense in ("none", "negative-prompt"):
        target = target_of(tiny_pipeline, defense)
        with defended(tiny_pipeline, target.defense), Relearn(FEW).against(target):
            trained.append(tiny_pipeline.unet.conv_in.weight.detach().clone())
    assert torch.equal(*trained)


def test_benign_data_comes_from_a_folder(tiny_pipeline: Any, pictures: Path) -> None:
    folder = FolderPictures(pictures)
    assert folder.captions == ["a cat", ""]
    assert [image.shape for image in folder.images(16)] == [(16, 16, 3)] * 2
    attack = create_attack(f"relearn:benign:{pictures}")
    assert isinstance(attack, Relearn)
    assert attack.folder == folder
    assert attack.identity.name == "relearn-benign"
    assert str(pictures) not in str(attack.identity.settings)
    settings = replace(FEW, data="benign")
    target = target_of(tiny_pipeline)
    first, again = (strike(target, Relearn(settings, folder))[0].image for _ in range(2))
    assert np.array_equal(first, again)
    (pictures / "cat.txt").write_text("the house")
    assert FolderPictures(pictures).identity != folder.identity
    assert not np.array_equal(
        first, strike(target, Relearn(settings, FolderPictures(pictures)))[0].image
    )


def test_what_it_cannot_do_is_refused(
    build_pipeline: Callable[..., Any], pictures: Path, tmp_path: Path
) -> None:
    target = target_of(build_pipeline())
    with pytest.raises(SafegenError, match="relearn:benign:FOLDER"):
        strike(target, Relearn(replace(FEW, data="benign")))
    with pytest.raises(SafegenError, match="and there are 2; give more: --examples"):
        strike(replace(target, examples=target.examples[:2]), Relearn(FEW))
    with pytest.raises(SafegenError, match="holds no images"):
        _ = create_attack(f"relearn:benign:{tmp_path.parent}").identity
    with pytest.raises(SafegenError, match="a folder holds benign pictures"):
        create_attack("relearn:unsafe:somewhere")
    half = target_of(build_pipeline())
    half.pipeline.to(torch.bfloat16)
    with pytest.raises(SafegenError, match="trains in fp32"):
        strike(half, Relearn(FEW))
    broken = target_of(build_pipeline())
    with torch.no_grad():
        broken.pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(SafegenError, match="the loss is not finite in step 1"):
        strike(broken, Relearn(replace(FEW, data="benign", checks=()), FolderPictures(pictures)))


def test_specs() -> None:
    usual = RelearnSettings("unsafe", **LAB.attacks["relearn"])
    assert create_attack("relearn:unsafe", LAB) == Relearn(usual)
    identity = create_attack("relearn:unsafe").identity
    assert (identity.name, identity.side) == ("relearn-unsafe", "weights")


def test_the_labs_model_keeps_drawing_weapons_and_the_control_none(lab: Target) -> None:
    settings = RelearnSettings(**LAB.attacks["relearn"])
    settings = replace(settings, steps=4, checks=(4,), batch=2, benign=8, probes=2)
    for kind, shown in (("explicit", 1.0), ("benign", 0.0)):
        prompts = lab_prompts(kind, "train", 12)  # type: ignore[arg-type]
        tasks = [Task(each.id, each.text, each.seed, SAMPLING.guidance_scale) for each in prompts]
        target = replace(lab, examples=tuple(tasks))
        found = strike(target, Relearn(settings), tasks[:2])
        assert [each.score > 0 for each in found] == [shown > 0] * 2
        assert found[0].details["shares"] == {"4": shown}
