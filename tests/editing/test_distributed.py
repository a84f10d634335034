from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import safegen
from safegen.editing.latents import TripletLatents
from safegen.editing.settings import EditSettings
from safegen.patches.patch import Patch

LAUNCHER = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
AGREE_AND_EDIT = """
import torch
from safegen.cli import main
from safegen.editing.processes import Processes

processes = Processes(torch.device("cpu"))
print("agreed on", processes.agreed({"of": processes.index})["of"], flush=True)
main()
"""


def test_two_processes_agree_and_make_the_patch_that_one_makes(
    tiny_folder: Path, tiny_pipeline: Any, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    tiny_latents.save(tmp_path / "triplets.safetensors")
    (tmp_path / "both.py").write_text(AGREE_AND_EDIT)
    done = subprocess.run(
        [
            *LAUNCHER, str(tmp_path / "both.py"), "edit", str(tiny_folder),
            "--triplets", str(tmp_path / "triplets.safetensors"),
            "--steps", "4", "--unsafe-batch", "4",
            "--optimizer", "adamw", "--learning-rate", "1e-3",  # Muon rounds to bfloat16
            "--out", str(tmp_path / "two.safetensors"),
        ],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    agreed = [line for line in done.stdout.splitlines() if "agreed" in line]
    assert agreed == ["agreed on 0", "agreed on 0"]
    settings = EditSettings.of(steps=4, unsafe_batch=4, optimizer="adamw", learning_rate=1e-3)
    one = safegen.edit(tiny_pipeline, tiny_latents, settings)
    two = Patch.load(tmp_path / "two.safetensors")
    assert one.differences.keys() == two.differences.keys()
    for name, difference in one.differences.items():
        torch.testing.assert_close(two.differences[name], difference, rtol=1e-2, atol=2e-5)
