from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from safegen.editing.latents import TripletLatents
from safegen.patches.patch import Patch

LAUNCHER = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
AGREE = """
import torch
from safegen.editing.processes import Processes
with Processes(torch.device("cpu")) as processes:
    print(processes.agreed({"of": processes.index})["of"])
"""


def test_what_is_agreed_on_is_the_first_process_own(tmp_path: Path) -> None:
    (tmp_path / "agree.py").write_text(AGREE)
    command = [*LAUNCHER, str(tmp_path / "agree.py")]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0"]


def test_two_processes_make_the_patch_that_one_makes(
    tiny_folder: Path, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    tiny_latents.save(tmp_path / "triplets.safetensors")
    launchers = {"one": [sys.executable], "two": LAUNCHER}
    for name, launcher in launchers.items():
        subprocess.run(
            [
                *launcher, "-m", "safegen", "edit", str(tiny_folder),
                "--triplets", str(tmp_path / "triplets.safetensors"),
                "--steps", "4", "--unsafe-batch", "4", "--teacher-pool", "16",
                "--optimizer", "adamw", "--learning-rate", "1e-3",  # Muon rounds to bfloat16
                "--out", str(tmp_path / f"{name}.safetensors"),
            ],
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=300,
        )  # fmt: skip
    one, two = (Patch.load(tmp_path / f"{name}.safetensors") for name in launchers)
    assert one.differences.keys() == two.differences.keys()
    for name, difference in one.differences.items():
        torch.testing.assert_close(two.differences[name], difference, rtol=1e-2, atol=2e-5)
