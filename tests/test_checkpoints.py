from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from safegen.checkpoints import load_state, save_state
from safegen.errors import SafegenError

KEYS = st.text(max_size=6).filter(lambda key: key not in ("__tensor__", "__int_keys__"))
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    seed = draw(st.integers(0, 2**32 - 1))
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 100
    tensor = numbers.abs().to(draw(st.sampled_from(DTYPES)))
    return tensor.transpose(0, 1) if tensor.ndim > 1 and draw(st.booleans()) else tensor


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | tensors()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def assert_same(left: Any, right: Any) -> None:
    """The same structure, keys in the same order, the same types and values, bit for bit."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


@given(state=st.dictionaries(KEYS, TREES, max_size=4))
@settings(max_examples=150, deadline=None)
def test_what_is_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, state)
    assert_same(load_state(path), state)


def test_names_that_read_alike_stay_apart(tmp_path: Path) -> None:
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}, "a~1b": torch.full((1,), 2.0)}
    save_state(tmp_path / "state", state)
    assert_same(load_state(tmp_path / "state"), state)


def test_the_same_tensor_twice_is_read_as_two(tmp_path: Path) -> None:
    tensor = torch.arange(3)
    save_state(tmp_path / "state", {"a": tensor, "view": tensor[1:]})
    assert_same(load_state(tmp_path / "state"), {"a": tensor, "view": tensor[1:]})


@pytest.mark.parametrize(
    "state", [{"a": object()}, {1: 0, "1": 0}, {"__tensor__": "a"}, {"a": {None: 1}}, {True: 1}]
)
def test_what_cannot_be_read_back_is_refused(tmp_path: Path, state: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        save_state(tmp_path / "state", state)
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        groups = [{"params": [module.weight]}, {"params": [module.bias], "lr": 0.1}]
        return module, torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    module, optimizer = build()
    step(module, optimizer)
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}
    save_state(tmp_path / "state", state)
    resumed, resumed_optimizer = build()
    read = load_state(tmp_path / "state")
    resumed.load_state_dict(read["module"])
    resumed_optimizer.load_state_dict(read["optimizer"])
    for _ in range(3):
        step(module, optimizer)
        step(resumed, resumed_optimizer)
    assert_same(dict(resumed.state_dict()), dict(module.state_dict()))
    before, after = optimizer.state_dict()["state"], resumed_optimizer.state_dict()["state"]
    assert_same(after, before)


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    save_state(whole, {"a": torch.arange(100)})
    (tmp_path / "truncated").write_bytes(whole.read_bytes()[:-50])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    torch.save({"a": torch.arange(3)}, tmp_path / "pickle.pt")
    for name in ("truncated", "empty", "folder", "pickle.pt", "absent"):
        with pytest.raises(SafegenError, match=name) as caught:
            load_state(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [None, "{", "[]", "null", '{"a": {"__tensor__": "b"}}'])
def test_a_file_of_another_program_is_told_by_name(tmp_path: Path, header: str | None) -> None:
    metadata = None if header is None else {"state": header}
    save_file({"a": torch.zeros(1)}, tmp_path / "odd", metadata=metadata)
    with pytest.raises(SafegenError, match=r"odd: .*start the training anew"):
        load_state(tmp_path / "odd")


def test_reading_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "bad.pt").write_bytes(b"cposix\nsystem\n(S'touch " + bytes(marker) + b"'\ntR.")
    with pytest.raises(SafegenError, match=r"bad\.pt"):
        load_state(tmp_path / "bad.pt")
    assert not marker.exists()
