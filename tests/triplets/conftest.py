"""Small sets of picture files, and a detector of red."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from safegen.detectors.onnx import OnnxDetector, OnnxSettings

RED_BOX = (8, 4, 24, 20)
RedDetector = Callable[..., OnnxDetector]


def noise(seed: int, height: int = 32, width: int = 40) -> np.ndarray:
    """A picture without any red, so that the detector finds nothing."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image[..., 0] = 0
    return image


def with_red(seed: int) -> np.ndarray:
    """A picture with a noisy red region at ``RED_BOX``."""
    image = noise(seed)
    left, top, right, bottom = RED_BOX
    region = np.random.default_rng(seed).integers(200, 256, (bottom - top, right - left), np.uint8)
    image[top:bottom, left:right, 0] = region
    return image


@pytest.fixture
def picture_folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three unsafe and two benign pictures, in mixed formats."""
    unsafe, benign = tmp_path / "unsafe", tmp_path / "benign"
    unsafe.mkdir()
    benign.mkdir()
    for seed, name in enumerate(("c.png", "a.webp", "b.PNG")):
        Image.fromarray(with_red(seed)).save(unsafe / name, lossless=True)
    for seed, name in enumerate(("y.bmp", "x.png")):
        Image.fromarray(noise(10 + seed)).save(benign / name)
    (unsafe / "notes.txt").write_text("not a picture")
    (unsafe / ".hidden.png").write_bytes(b"left by a file manager")
    return unsafe, benign


@pytest.fixture
def red_detector(tmp_path: Path) -> RedDetector:
    """Builds a detector whose score is the mean of red, with ``RED_BOX`` as its box."""

    def build(
        threshold: float = 0.1, boxes: bool = True, size: tuple[int, int] = (32, 40)
    ) -> OnnxDetector:
        settings = OnnxSettings(
            build_red_model(tmp_path / "red.onnx", boxes), ("red",), threshold=threshold, size=size
        )
        return OnnxDetector(settings)

    return build


def build_red_model(path: Path, boxes: bool = True) -> Path:
    kind = onnx.TensorProto.FLOAT
    constants = {
        "starts": np.array([0]),
        "ends": np.array([1]),
        "channel": np.array([1]),
        "last": np.array([2]),
        "zero": np.array(0, np.float32),
        "box": np.array(RED_BOX, np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "channel"], ["red"]),
        helper.make_node("ReduceMean", ["red"], ["scores"], axes=(2, 3), keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("scores", kind, None)]
    if boxes:
        nodes += [
            helper.make_node("Unsqueeze", ["scores", "last"], ["columns"]),
            helper.make_node("Mul", ["columns", "zero"], ["zeros"]),
            helper.make_node("Add", ["zeros", "box"], ["boxes"]),
        ]
        outputs.append(helper.make_tensor_value_info("boxes", kind, None))
    shape = ("batch", 3, "height", "width")
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("images", kind, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path
