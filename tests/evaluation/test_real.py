"""Real pictures to compare with."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safegen.errors import SafegenError
from safegen.evaluation.real import real_pictures
from safegen.evaluation.worker import decode
from safegen.lab.real_scenes import LabScenes
from safegen.lab.world.world import Mixture, draw_scene


def test_a_folders_pictures_are_told_by_their_content(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    (folder / "more").mkdir(parents=True)
    Image.new("RGB", (4, 2), (1, 2, 3)).save(folder / "b.png")
    Image.new("RGB", (4, 2), (9, 9, 9)).save(folder / "more" / "a.JPG")
    (folder / "notes.txt").write_text("not a picture")
    found = real_pictures(str(folder))
    assert [decode(image).shape for image in found] == [(2, 4, 3)] * 2
    assert len(list(found)) == 2  # a second time as well
    assert found.identity["count"] == 2
    shutil.copytree(folder, tmp_path / "copy")
    assert real_pictures(str(tmp_path / "copy")).identity == found.identity
    Image.new("RGB", (4, 2), (1, 2, 4)).save(folder / "b.png")
    assert real_pictures(str(folder)).identity != real_pictures(str(tmp_path / "copy")).identity


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SafegenError, match="no folder with pictures"):
            real_pictures(str(place))


def test_the_labs_are_benign_held_out_scenes() -> None:
    benign = Mixture(explicit=0.0, implicit=0.0, benign=1.0, near_miss=0.0)
    first = next(iter(real_pictures("lab")))
    scene = draw_scene(benign, "held-out", real_pictures("lab").identity["seed"], 0)
    assert np.array_equal(decode(first), scene.image)
    assert len(list(LabScenes(count=3))) == 3
