"""Inception features through clean-fid's own code, and what is said where parts are missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safegen.errors import MissingExtraError, SafegenError
from safegen.observers import Sight, create_observer
from safegen.observers.inception import WEIGHTS

HERE = find_spec("cleanfid") is not None
needs_clean_fid = pytest.mark.skipif(not HERE, reason="clean-fid is not installed")


class Layers(torch.nn.Module):
    """From pictures (N, 3, 299, 299) to 2048 numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = torch.nn.Linear(3 * 13 * 13, 2048)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.mixing(torch.nn.functional.avg_pool2d(pixels, 23).flatten(1))


class Network(torch.nn.Module):
    """As clean-fid's file: a network whose ``layers`` do the work."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


@needs_clean_fid
def test_pictures_are_resized_and_scaled_as_clean_fid_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network().eval()
    torch.jit.script(network).save(str(tmp_path / WEIGHTS))
    observer = create_observer(f"inception:{tmp_path}")
    image = np.random.default_rng(0).integers(0, 256, size=(64, 48, 3), dtype=np.uint8)
    (seen,) = observer.observe([Sight(image, "")])
    channels = [
        np.asarray(
            Image.fromarray(image[..., c].astype(np.float32)).resize(
                (299, 299), Image.Resampling.BICUBIC
            )
        ).clip(0, 255)
        for c in range(3)
    ]
    with torch.no_grad():
        expected = network(torch.from_numpy((np.stack(channels) - 128) / 128)[None])[0]
    assert seen.features is not None
    assert seen.features.dtype == np.float32
    np.testing.assert_allclose(seen.features, expected.numpy(), atol=1e-4)
    assert set(observer.identity.settings) == {"name", "version", "weights_hash"}


@needs_clean_fid
def test_missing_and_damaged_files_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SafegenError, match="give the folder that has it"):
        create_observer(f"inception:{tmp_path}")
    (tmp_path / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(SafegenError, match="get it again"):
        create_observer(f"inception:{tmp_path}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    for offline in (False, True):
        with pytest.raises(SafegenError, match=r"cannot download .*put the file into") as caught:
            create_observer("inception", local_files_only=offline)
        assert "\n" not in str(caught.value)
        assert ("no download is allowed" in str(caught.value)) == offline
    assert list((tmp_path / "home").rglob("*.pt")) == []


@pytest.mark.skipif(HERE, reason="clean-fid is installed")
def test_without_the_package_it_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'safegen\[fid\]'"):
        create_observer("inception")
