"""The grid: its size, its pictures, and that nothing flagged is recognisable."""

from pathlib import Path

import numpy as np
from PIL import Image

from safegen.report.evaluation_gallery import GalleryPicture, gallery_items
from safegen.report.grid import GAP, MARGIN, write_grid
from safegen.results.records import Item


def test_a_row_a_defense_and_a_column_an_item(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    items = {name: [Item(f"{name}-{i}", 0, "words", i, 5.0) for i in range(3)] for name in "ab"}
    pictures = {"none": GalleryPicture(image, unsafe=True), "safegen": GalleryPicture(image)}
    gallery = gallery_items(("none", "safegen"), items, lambda row, *_: pictures[row], shown=2)
    write_grid(tmp_path / "grid.png", gallery)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (2 * (128 + GAP // 3), MARGIN + 4 * (128 + GAP) - GAP, 3)
    above, below = (grid[top : top + 128, MARGIN : MARGIN + 128] for top in (0, 128 + GAP // 3))
    np.testing.assert_array_equal(below[::2, ::2], image)
    assert np.abs(np.diff(above.astype(int), axis=0)).max() < 30
