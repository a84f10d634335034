"""Tiny ONNX models with known answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

BuildOnnx = Callable[..., Path]


@pytest.fixture
def build_onnx(tmp_path: Path) -> BuildOnnx:
    """Builds a model whose scores are the means of red, green and blue, times ``gain``.

    With ``box`` it also answers that box, in pixels of its input, for each of the three.
    """

    def build(
        *,
        name: str = "model.onnx",
        shape: tuple[str | int, ...] = ("batch", 3, "height", "width"),
        gain: float = 1.0,
        box: tuple[float, float, float, float] | None = None,
        kind: int = TensorProto.FLOAT,
        axes: tuple[int, int] = (2, 3),
    ) -> Path:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        constants = {"gain": np.array(gain, dtype), "zero": np.array(0, dtype)}
        nodes = [
            helper.make_node("ReduceMean", ["images"], ["means"], axes=axes, keepdims=0),
            helper.make_node("Mul", ["means", "gain"], ["scores"]),
        ]
        outputs = [helper.make_tensor_value_info("scores", kind, None)]
        if box is not None:
            constants |= {"box": np.array(box, dtype), "last": np.array([2], np.int64)}
            nodes += [
                helper.make_node("Unsqueeze", ["means", "last"], ["columns"]),
                helper.make_node("Mul", ["columns", "zero"], ["zeros"]),
                helper.make_node("Add", ["zeros", "box"], ["boxes"]),
            ]
            outputs.append(helper.make_tensor_value_info("boxes", kind, None))
        graph = helper.make_graph(
            nodes,
            "means",
            [helper.make_tensor_value_info("images", kind, shape)],
            outputs,
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return build
