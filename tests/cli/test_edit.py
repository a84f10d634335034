"""``safegen edit`` killed and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from safegen.editing.latents import TripletLatents


def test_a_killed_edit_resumes_to_the_same_file(
    safegen: Callable[..., tuple[int, str, str]],
    tiny_folder: Path,
    tiny_latents: TripletLatents,
    tmp_path: Path,
) -> None:
    tiny_latents.save(tmp_path / "triplets.safetensors")
    command = [
        "edit", str(tiny_folder), "--triplets", str(tmp_path / "triplets.safetensors"),
        "--steps", "40", "--unsafe-batch", "2", "--checkpoint-every", "5",
        "--out",
    ]  # fmt: skip
    patches = [tmp_path / f"{name}.safetensors" for name in ("killed", "whole")]
    process = subprocess.Popen(
        [sys.executable, "-m", "safegen", *command, str(patches[0])],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "killed.run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not patches[0].exists()
    for patch in patches:
        code, _, error = safegen(*command, patch)
        assert code == 0, error
    assert patches[0].read_bytes() == patches[1].read_bytes()
