"""Detectors that must agree, on ONNX models with known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from safegen.detectors import create_detector
from safegen.errors import SafegenError

BuildOnnx = Callable[..., Path]


@pytest.fixture
def specs(tmp_path: Path, build_onnx: BuildOnnx) -> dict[str, str]:
    """Specs of detectors of red, green and blue, by what their scores are multiplied with."""

    def spec(name: str, gain: float, labels: list[str], threshold: float) -> str:
        model = build_onnx(name=f"{name}.onnx", gain=gain)
        settings = {"model": model.name, "labels": labels, "threshold": threshold, "name": name}
        (tmp_path / f"{name}.json").write_text(json.dumps({**settings, "size": [4, 4]}))
        return f"onnx:{tmp_path / name}.json"

    return {
        "whole": spec("whole", 1.0, ["red", "green", "blue"], 0.5),
        "half": spec("half", 0.5, ["rot", "grün", "blau"], 0.2),
        "low+fat": spec("low+fat", 0.25, ["r", "g", "b"], 0.2),
    }


def picture(red: float, green: float) -> np.ndarray:
    return np.full((4, 4, 3), (round(255 * red), round(255 * green), 0), np.uint8)


def test_all_must_find_something_and_the_least_sure_decides(specs: dict[str, str]) -> None:
    detector = create_detector(f"agreeing:{specs['whole']}+{specs['half']}+{specs['low+fat']}")
    both, first_only, last_only = detector.detect(
        [picture(1.0, 0.6), picture(0.7, 0.0), picture(0.45, 0.0)]
    )
    assert [each.label for each in both] == ["red", "green"]
    assert [each.score for each in both] == pytest.approx([0.25, 0.25])
    assert first_only == []
    assert last_only == []


def test_a_score_that_is_lower_already_stays(specs: dict[str, str]) -> None:
    detector = create_detector(f"agreeing:{specs['half']}+{specs['whole']}")
    ((red, green),) = detector.detect([picture(1.0, 0.6)])
    assert (red.label, green.label) == ("rot", "grün")
    assert (red.score, green.score) == pytest.approx((0.5, 0.3), abs=0.01)


def test_what_is_recorded_tells_them_apart(specs: dict[str, str]) -> None:
    one = create_detector(f"agreeing:{specs['whole']}+{specs['half']}").identity
    other = create_detector(f"agreeing:{specs['whole']}+{specs['low+fat']}").identity
    assert (one.name, one.threshold) == ("whole+half", 0.2)
    assert one.labels == ("red", "green", "blue")
    assert other.name == "whole+low+fat"
    assert one.file_hash != other.file_hash


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("agreeing", "onnx:settings.json"),
        ("agreeing:lab", "at least two detectors"),
        ("agreeing:lab+labb", "unknown name 'lab\\+labb'"),
        ("agreeing:labb+lab", "unknown name 'labb'"),
        ("agreeing:lab+lab:third", "no detector 'third'"),
    ],
)
def test_what_is_wrong_is_said(spec: str, problem: str) -> None:
    with pytest.raises(SafegenError, match=problem):
        create_detector(spec)


def test_a_threshold_is_each_one_s_own() -> None:
    with pytest.raises(SafegenError, match="threshold"):
        create_detector("agreeing:lab+lab:second", threshold=0.7)
