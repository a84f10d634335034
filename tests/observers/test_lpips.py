"""LPIPS against its formula in double precision, and what is said where parts are missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d, relu

from safegen.errors import MissingExtraError, SafegenError
from safegen.observers import Sight, create_observer

SHAPES = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def alexnet() -> Weights:
    """Random weights under torchvision's names, those of the classifier among them."""
    generator = torch.Generator().manual_seed(0)
    weights = {"classifier.1.weight": torch.zeros(2, 2)}
    for number, shape in SHAPES.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weights[f"features.{number}.weight"] = scale * torch.randn(shape, generator=generator)
        weights[f"features.{number}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return weights


@pytest.fixture(scope="module")
def linear() -> Weights:
    """Random weights under the names of the package lpips."""
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{layer}.model.1.weight": torch.rand(1, shape[0], 1, 1, generator=generator)
        for layer, shape in enumerate(SHAPES.values())
    }


@pytest.fixture
def weights_file(
    tmp_path: Path, alexnet: Weights, linear: Weights, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """AlexNet's file, beside an installed package with the layers' weights."""
    package = tmp_path / "site" / "lpips"
    (package / "weights" / "v0.1").mkdir(parents=True)
    # Importing the real package imports torchvision; this one would fail as well.
    (package / "__init__.py").write_text("raise ImportError('torchvision')\n")
    torch.save(linear, package / "weights" / "v0.1" / "alex.pth")
    torch.save(alexnet, tmp_path / "alexnet.pth")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "alexnet.pth"


def pictures(count: int, side: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(side)
    return list(rng.integers(0, 256, size=(count, side, side + 3, 3), dtype=np.uint8))


def by_formula(weights: Weights, linear: Weights, picture: np.ndarray) -> list[np.ndarray]:
    """AlexNet's five activations of unit length, each channel times the root of its weight."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    value = torch.from_numpy((picture / 255 - mean) / std).permute(2, 0, 1)[None]
    found = []
    for layer, number in enumerate(SHAPES):
        kernel, bias = (
            weights[f"features.{number}.{part}"].double() for part in ("weight", "bias")
        )
        if layer in (1, 2):
            value = max_pool2d(value, 3, 2)
        stride, padding = (4, 2) if layer == 0 else (1, kernel.shape[2] // 2)
        value = relu(conv2d(value, kernel, bias, stride, padding))
        unit = value / value.norm(dim=1, keepdim=True)
        found.append((unit * linear[f"lin{layer}.model.1.weight"].double().sqrt())[0].numpy())
    return found


def test_it_is_the_papers_distance(weights_file: Path, alexnet: Weights, linear: Weights) -> None:
    ones, others = pictures(3), [np.roll(each, 9, axis=0) for each in pictures(3)]
    observer = create_observer(f"lpips:{weights_file}")
    seen = observer.observe(
        [Sight(one, "", other) for one, other in zip(ones, others, strict=True)]
    )
    for observation, one, other in zip(seen, ones, others, strict=True):
        layers = zip(
            by_formula(alexnet, linear, one), by_formula(alexnet, linear, other), strict=True
        )
        expected = sum(float(np.square(x - y).sum(axis=0).mean()) for x, y in layers)
        # The package rounds ImageNet's mean and deviation to three digits.
        assert observation.values["distance"] == pytest.approx(expected, rel=0.02)
        assert expected > 0.01


def test_it_is_a_distance(weights_file: Path) -> None:
    one, other = pictures(2)
    observer = create_observer(f"lpips:{weights_file}")
    assert observer.compares
    same, there, back = observer.observe(
        [Sight(one, "", one), Sight(one, "", other), Sight(other, "", one)]
    )
    assert same.values["distance"] == 0
    assert there.values["distance"] == pytest.approx(back.values["distance"], rel=1e-5)
    again = create_observer(f"lpips:{weights_file}")
    assert again.identity == observer.identity
    assert str(weights_file) not in str(observer.identity)


def test_what_cannot_be_compared_is_refused(weights_file: Path) -> None:
    (one,), (small,) = pictures(1), pictures(1, side=30)
    observer = create_observer(f"lpips:{weights_file}")
    assert observer.observe([Sight(pictures(1, 31)[0], "", pictures(1, 31)[0])])
    for sight, message in (
        (Sight(one, ""), "same size"),
        (Sight(one, "", small), "same size"),
        (Sight(small, "", small), "31 pixels or more"),
    ):
        with pytest.raises(SafegenError, match=message):
            observer.observe([sight])


def test_other_files_are_refused(
    weights_file: Path, linear: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(linear, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(weights_file.read_bytes()[:1000])
    for name, message in (
        ("other.pth", "has not the weights of AlexNet"),
        ("torn.pth", "get it again"),
        ("none.pth", "get it again"),
    ):
        with pytest.raises(SafegenError, match=message):
            create_observer(f"lpips:{tmp_path / name}")
    with pytest.raises(SafegenError, match=r"no download is allowed.*put the file into"):
        create_observer("lpips", local_files_only=True)


@pytest.mark.skipif(find_spec("lpips") is not None, reason="the package lpips is installed")
def test_without_the_package_it_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'safegen\[lpips\]'"):
        create_observer("lpips")
