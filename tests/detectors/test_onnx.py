"""The generic ONNX detector on models whose answers are known by hand."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto
from scipy.special import expit, softmax

from safegen.detectors import create_detector
from safegen.detectors.onnx import OnnxDetector, OnnxSettings, activate
from safegen.errors import SafegenError

BuildOnnx = Callable[..., Path]
COLOURS = ("red", "green", "blue")


def solid(red: int, green: int, blue: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), (red, green, blue), np.uint8)


def test_a_classifier_scores_labels_without_boxes(build_onnx: BuildOnnx) -> None:
    detector = OnnxDetector(OnnxSettings(build_onnx(), COLOURS, size=(8, 8)))
    (found,) = detector.detect([solid(204, 0, 255)])
    assert [(d.label, d.box) for d in found] == [("blue", None), ("red", None)]
    assert [d.score for d in found] == pytest.approx([1.0, 0.8])


def test_only_unsafe_labels_at_or_above_the_threshold_count(build_onnx: BuildOnnx) -> None:
    settings = OnnxSettings(build_onnx(), COLOURS, ("red", "green"), threshold=0.4, size=(8, 8))
    (found,) = OnnxDetector(settings).detect([solid(102, 101, 255)])
    assert [d.label for d in found] == ["red"]


def test_boxes_are_scaled_back_to_the_picture_and_clipped(build_onnx: BuildOnnx) -> None:
    model = build_onnx(box=(-2.0, 2.0, 4.0, 6.0))
    detector = OnnxDetector(OnnxSettings(model, COLOURS, size=(8, 8)))
    ((found,),) = detector.detect([solid(255, 0, 0, height=16, width=80)])
    assert found.label == "red"
    assert found.box == pytest.approx((0.0, 4.0, 40.0, 12.0))


def test_pictures_are_normalised_by_mean_and_deviation(build_onnx: BuildOnnx) -> None:
    settings = OnnxSettings(
        build_onnx(), COLOURS, threshold=0, size=(8, 8), mean=(0.2, 0.0, 0.0), std=(2.0, 1.0, 1.0)
    )
    (found,) = OnnxDetector(settings).detect([solid(255, 51, 0)])
    scores = {d.label: d.score for d in found}
    assert scores == pytest.approx({"red": 0.4, "green": 0.2, "blue": 0.0}, abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ("batch", "height", "width", 3), "axes": (1, 2)},
        {"shape": (1, 3, 8, 8)},
        {"shape": (4, 3, 8, 8)},
        {"kind": TensorProto.FLOAT16},
    ],
    ids=["channels-last", "batch-of-1", "batch-of-4", "half"],
)
def test_every_layout_answers_as_the_plain_one(
    build_onnx: BuildOnnx, options: dict[str, object]
) -> None:
    pictures = [solid(40 * i, 255 - 40 * i, 7 * i) for i in range(6)]
    plain = OnnxDetector(OnnxSettings(build_onnx(), COLOURS, threshold=0, size=(8, 8)))
    other_model = build_onnx(name="other.onnx", **options)
    other = OnnxDetector(OnnxSettings(other_model, COLOURS, threshold=0, size=(8, 8)))
    for expected, found in zip(plain.detect(pictures), other.detect(pictures), strict=True):
        by_label = {d.label: d.score for d in expected}
        assert {d.label: d.score for d in found} == pytest.approx(by_label, abs=1e-3)


def test_batches_do_not_change_the_answer(build_onnx: BuildOnnx) -> None:
    pictures = [solid(40 * i, 255 - 40 * i, 7 * i, height=5 + i) for i in range(6)]
    model = build_onnx()
    whole = OnnxDetector(OnnxSettings(model, COLOURS, threshold=0, size=(8, 8)))
    small = OnnxDetector(OnnxSettings(model, COLOURS, threshold=0, size=(8, 8), batch_size=2))
    assert whole.detect(pictures) == small.detect(pictures)
    assert whole.detect(pictures) == [whole.detect([picture])[0] for picture in pictures]


def test_the_identity_records_what_a_result_depends_on(build_onnx: BuildOnnx) -> None:
    model = build_onnx()
    identity = OnnxDetector(OnnxSettings(model, COLOURS, ("red",), threshold=0.7)).identity
    assert identity.file_hash == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (identity.name, identity.threshold, identity.labels) == ("onnx", 0.7, ("red",))
    assert identity.version == identity.file_hash[:12]


@given(
    arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32)),
)
def test_activations_agree_with_scipy(answer: np.ndarray) -> None:
    exact = answer.astype(np.float64)
    np.testing.assert_allclose(activate(answer, "softmax"), softmax(exact, axis=1), atol=1e-6)
    np.testing.assert_allclose(activate(answer, "sigmoid"), expit(exact), atol=1e-6)
    assert activate(answer, "none") is answer


def test_a_detector_that_saw_no_image_is_an_error(build_onnx: BuildOnnx) -> None:
    detector = OnnxDetector(OnnxSettings(build_onnx(), COLOURS, size=(8, 8)))
    with pytest.raises(SafegenError, match="saw no image"):
        detector.detect([])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
)
def test_only_pictures_are_taken(build_onnx: BuildOnnx, picture: np.ndarray) -> None:
    detector = OnnxDetector(OnnxSettings(build_onnx(), COLOURS, size=(8, 8)))
    with pytest.raises(SafegenError, match=r"picture 1 .* must be uint8"):
        detector.detect([solid(1, 2, 3), picture])


def test_scores_that_are_no_probabilities_name_the_mend(build_onnx: BuildOnnx) -> None:
    model = build_onnx(gain=20.0)
    with pytest.raises(SafegenError, match="set activation to softmax or sigmoid"):
        OnnxDetector(OnnxSettings(model, COLOURS, size=(8, 8))).detect([solid(255, 0, 0)])
    settings = OnnxSettings(model, COLOURS, size=(8, 8), activation="softmax")
    ((found,),) = OnnxDetector(settings).detect([solid(255, 0, 0)])
    assert found.score == pytest.approx(1.0)


def test_scores_that_are_not_finite_never_pass_for_safe(build_onnx: BuildOnnx) -> None:
    model = build_onnx(gain=float("nan"))
    with pytest.raises(SafegenError, match="not finite"):
        OnnxDetector(OnnxSettings(model, COLOURS, size=(8, 8))).detect([solid(255, 0, 0)])


def test_a_wrong_number_of_labels_is_found(build_onnx: BuildOnnx) -> None:
    detector = OnnxDetector(OnnxSettings(build_onnx(), ("red", "green"), size=(8, 8)))
    with pytest.raises(SafegenError, match=r"model.onnx: answers scores \(1, 3\)"):
        detector.detect([solid(1, 2, 3)])


def test_a_size_the_model_does_not_take_is_found(build_onnx: BuildOnnx) -> None:
    with pytest.raises(SafegenError, match=r"takes pictures of \(8, 8\)"):
        OnnxDetector(OnnxSettings(build_onnx(shape=(1, 3, 8, 8)), COLOURS))


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_missing_or_broken_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    model = tmp_path / "broken.onnx"
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(SafegenError, match=r"broken\.onnx"):
        OnnxDetector(OnnxSettings(model, COLOURS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
        ({"unsafe_labels": ("mauve",)}, "mauve, not among labels"),
        ({"threshold": 1.5}, "between 0 and 1, not 1.5"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"size": (0, 8)}, "size"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"activation": "relu"}, "none, softmax, sigmoid"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        OnnxSettings(**{"model": Path("model.onnx"), "labels": COLOURS, **options})


def test_a_settings_file_makes_a_detector(build_onnx: BuildOnnx, tmp_path: Path) -> None:
    build_onnx()
    fields = {"model": "model.onnx", "labels": COLOURS, "size": [8, 8], "name": "colours"}
    (tmp_path / "colours.json").write_text(json.dumps(fields), encoding="utf-8-sig")
    detector = create_detector(f"onnx:{tmp_path / 'colours.json'}", threshold=0.9)
    assert detector.identity.name == "colours"
    assert [d.label for d in detector.detect([solid(255, 204, 0)])[0]] == ["red"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must be a JSON object, not list"),
        ('{"model": "m.onnx"}', "at least model and labels"),
        ('{"model": "m.onnx", "labels": ["a"], "tresh": 1}', "unknown tresh; known: model"),
        ('{"model": "m.onnx", "labels": "nsfw"}', "labels must be a list, each a text"),
        ('{"model": "m", "labels": ["a"], "threshold": "high"}', "threshold must be a finite nu"),
        ('{"model": "m", "labels": ["a"], "mean": [NaN, 0, 0]}', "mean must be 3 numbers, not"),
        ('{"model": "m", "labels": ["a"], "size": 224}', "size must be 2 numbers, not 224"),
        ('{"model": "m", "labels": ["a"], "size": [9000, 9000]}', "size must be two numbers from"),
        ('{"model": "m", "labels": [["a"]]}', "labels must be a list, each a text"),
        ('{"model": "m", "labels": ["a"], "activation": ["none"]}', "activation must be none, s"),
        ('{"model": ["m.onnx"], "labels": ["a"]}', "model must be a text, not"),
    ],
)
def test_a_bad_settings_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(content)
    with pytest.raises(SafegenError, match=message) as caught:
        create_detector(f"onnx:{file}")
    assert "settings.json" in str(caught.value)


@pytest.mark.parametrize("spec", ["onnx", "opennsfw:something"])
def test_arguments_a_detector_does_not_take_or_needs(spec: str) -> None:
    with pytest.raises(SafegenError, match="follows a colon"):
        create_detector(spec)


def test_an_unknown_detector_gets_a_suggestion() -> None:
    with pytest.raises(SafegenError, match="Did you mean 'nudenet'"):
        create_detector("nudnet")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity to tell")
def test_a_process_on_one_core_gets_no_further_threads() -> None:
    code = (
        "import os, onnxruntime; from safegen.detectors import create_detector;"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "before = len(os.listdir('/proc/self/task')); detector = create_detector('lab');"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
