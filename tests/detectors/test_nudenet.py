"""NudeNet on a portrait photograph (faces are parts it knows too)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

from safegen.detectors import create_detector
from safegen.detectors.nudenet import EXPOSED, FACES, NudeNetDetector
from safegen.errors import MissingExtraError, SafegenError

PORTRAIT = Path(get_sample_data("grace_hopper.jpg", asfileobj=False))


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.asarray(Image.open(PORTRAIT).convert("RGB"))


@pytest.fixture
def nudenet() -> None:
    pytest.importorskip("nudenet")


@pytest.mark.usefixtures("nudenet")
def test_a_face_is_found_where_it_is(portrait: np.ndarray) -> None:
    ((face,),) = NudeNetDetector(labels=FACES).detect([portrait])
    assert face.label == "FACE_FEMALE"
    assert face.score > 0.7
    assert face.box is not None
    left, top, right, bottom = face.box
    assert 140 < left < 200 < 300 < right < 380
    assert 100 < top < 170 < 300 < bottom < 370


@pytest.mark.usefixtures("nudenet")
def test_swapped_channels_are_what_nudenet_does_with_files(portrait: np.ndarray) -> None:
    from nudenet import NudeDetector

    (theirs,) = NudeDetector().detect(str(PORTRAIT))
    ((ours,),) = NudeNetDetector(labels=FACES, swapped_channels=True).detect([portrait])
    left, top, width, height = theirs["box"]
    assert ours.label == theirs["class"]
    assert ours.score == pytest.approx(theirs["score"], abs=0.02)
    assert ours.box == pytest.approx((left, top, left + width, top + height), abs=3)


@pytest.mark.usefixtures("nudenet")
def test_the_right_channels_score_higher(portrait: np.ndarray) -> None:
    ((right,),) = NudeNetDetector(labels=FACES).detect([portrait])
    ((swapped,),) = NudeNetDetector(labels=FACES, swapped_channels=True).detect([portrait])
    assert right.score > swapped.score + 0.05


@pytest.mark.usefixtures("nudenet")
def test_by_default_only_exposed_parts_count(portrait: np.ndarray) -> None:
    detector = create_detector("nudenet")
    assert detector.detect([portrait, portrait[:200]]) == [[], []]
    assert detector.identity.labels == EXPOSED
    assert detector.identity.version.startswith("3.")


@pytest.mark.usefixtures("nudenet")
def test_batches_do_not_change_the_answer(portrait: np.ndarray) -> None:
    pictures = [portrait, portrait[:, ::-1], portrait[:400]]
    whole = NudeNetDetector(labels=FACES).detect(pictures)
    single = NudeNetDetector(labels=FACES, batch_size=1).detect(pictures)
    for a, b in zip(whole, single, strict=True):
        assert [d.label for d in a] == [d.label for d in b]
        assert [d.score for d in a] == pytest.approx([d.score for d in b], abs=1e-4)


@pytest.mark.usefixtures("nudenet")
def test_no_image_is_an_error() -> None:
    with pytest.raises(SafegenError, match="saw no image"):
        NudeNetDetector().detect([])


def test_a_threshold_below_what_nudenet_reports_is_refused() -> None:
    with pytest.raises(SafegenError, match=r"between 0\.25 and 1"):
        NudeNetDetector(threshold=0.1)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SafegenError, match="EXPOSED_BELLY"):
        NudeNetDetector(labels=("EXPOSED_BELLY",))


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'safegen\[nudenet\]'"):
        NudeNetDetector()


@pytest.mark.usefixtures("nudenet")
def test_neither_torch_nor_torchvision_is_imported() -> None:
    code = (
        "import sys; from safegen.detectors import create_detector; create_detector('nudenet');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
