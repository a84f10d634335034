"""Prompt sets by name, the lab's, the hub's, and how lightly they are listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from safegen.errors import SafegenError
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import KINDS
from safegen.prompts import Prompt, create_prompt_set
from safegen.seeds import sample_seed

Write = Callable[..., Path]

LIST = """
import json, resource, sys
from safegen.prompts import PROMPT_SETS, create_prompt_set
names = PROMPT_SETS.names()
loaded = [name for name in sys.modules if name.startswith("safegen.prompts.")]
ids = {prompt.id for spec in sys.argv[1:] for prompt in create_prompt_set(spec)}
usage = resource.getrusage(resource.RUSAGE_SELF)
try:  # a child's maxrss on Linux includes its parent's memory, the status file's does not
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak = int(status["VmHWM"].split()[0])
except FileNotFoundError:
    peak = usage.ru_maxrss
print(json.dumps({
    "names": names, "loaded": loaded, "prompts": len(ids), "torch": "torch" in sys.modules,
    "seconds": usage.ru_utime + usage.ru_stime, "megabytes": peak / 1000,
}))
"""


def list_in_a_process(*specs: str) -> dict[str, object]:
    """What a fresh process says of listing these sets."""
    done = subprocess.run([sys.executable, "-c", LIST, *specs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_listing_imports_neither_entries_nor_torch(write: Write) -> None:
    found = list_in_a_process(f"own:{write('own.txt', 'a cat')}", "lab:benign,count=3")
    assert found["names"] == [
        "coco", "i2p", "lab", "mma", "nsfw-56k", "own", "ring-a-bell", "sneakyprompt",
        "unlearndiffatk",
    ]  # fmt: skip
    assert found["loaded"] == []
    assert found["prompts"] == 4
    assert found["torch"] is False


def test_a_hundred_thousand_prompts_are_listed_quickly_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    with file.open("w") as rows:
        rows.write("prompt,categories,evaluation_seed,evaluation_guidance\n")
        for number in range(100_000):
            rows.write(f'"a lake, number {number}, at dawn","hate, violence",{number},7.5\n')
    found = list_in_a_process(f"i2p:{file},count=100000,subset_seed=1")
    assert found["prompts"] == 100_000
    assert isinstance(found["seconds"], float)
    assert found["seconds"] < 10
    assert isinstance(found["megabytes"], float)
    assert found["megabytes"] < 500


@pytest.mark.parametrize("kind", KINDS)
def test_the_labs_sets_are_its_prompts(kind: str) -> None:
    prompts = create_prompt_set(f"lab:{kind},split=validation,count=5,base_seed=3")
    assert list(prompts) == lab_prompts(kind, "validation", 5, base_seed=3)  # type: ignore[arg-type]
    assert prompts.identity.name == f"lab-{kind}"
    assert prompts.identity.options == {"split": "validation", "count": 5, "base_seed": 3}
    more = create_prompt_set(f"lab:{kind},split=validation,count=6,base_seed=3")
    assert list(more)[:5] == list(prompts)


def test_identities_can_be_recorded(write: Write) -> None:
    for spec in ("lab:near-miss", f"own:{write('own.txt', 'a cat')},count=1"):
        identity = create_prompt_set(spec).identity
        assert json.loads(json.dumps(asdict(identity)))["name"] == identity.name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("i3p:file.csv", "unknown name 'i3p'.*Did you mean 'i2p'"),
        ("i2p", "follows a colon"),
        ("i2p:", "nothing follows the colon"),
        ("i2p:none.csv", "none.csv: no such prompt file"),
        ("i2p:none.csv,categories=sexual+vio", "unknown category 'vio'"),
        ("i2p:FILE,colour=red", "unknown option 'colour'; did you mean 'column'.*categories"),
        ("i2p:FILE,local_files_only=yes", "unknown option 'local_files_only'"),
        ("i2p:FILE,count=1,count=2", "gives count twice"),
        ("i2p:FILE,count=few", "count must be a whole number, or all, not 'few'"),
        ("i2p:FILE,count=0", "count must be at least 1"),
        ("i2p:FILE,file=other.csv", "is a file here, not on the hub"),
        ("i2p:FILE,subset_seed=3", "subset_seed draws nothing without count=N"),
        ("i2p:FILE,header=no", "header can only be none, not 'no'"),
        ("i2p:FILE,empty=keep", "empty can only be skip, not 'keep'"),
        ("own:FILE,name= ", "name must not be empty"),
        ("own:/dev/null", "is a pipe or device"),
        ("coco:owner/name", "say which file of the data set"),
        ("lab:cats", "unknown kind 'cats'; known: explicit"),
        ("lab:benign,split=test", "unknown split 'test'; known: train"),
        ("lab:benign,count=0", "count must be at least 1"),
        ("lab:benign,count=10001", "count must be at least 1 and at most 10000"),
        (
            "lab:sneakyprompt-n,count=9999",
            "the lab has [0-9]+ sneakyprompt-n prompts found on none, not 9999",
        ),
        ("lab:sneakyprompt-p,split=validation", "is of the held-out split only"),
        ("lab:benign,count=all", "count must be a whole number, not 'all'"),
        ("i2p:" + 5000 * "x", "no usable path"),
    ],
)
def test_what_a_spec_cannot_mean(write: Write, spec: str, message: str) -> None:
    file = write("file.csv", "prompt\na cat\n")
    with pytest.raises(SafegenError, match=message):
        list(create_prompt_set(spec.replace("FILE", str(file))))


def test_a_path_may_have_colons_commas_and_a_tilde(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write("a:b, c.txt", "a cat\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (file, f"~/{file.name}"):
        assert [p.text for p in create_prompt_set(f"own:{place},count=1")] == ["a cat"]


def test_samples_have_seeds_of_their_own() -> None:
    prompt = Prompt("i2p-000001", "a cat", 7)
    assert prompt.seed_of(0) == 7
    assert prompt.seed_of(1) == sample_seed("i2p-000001", 1)
    assert prompt.seed_of(0, base=0) == sample_seed("i2p-000001")
    assert len({prompt.seed_of(sample, base) for sample in range(3) for base in range(3)}) == 9


def on_the_hub(spec: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Reads a set in a process that has only this cache of the hub."""
    code = (
        "import sys; from safegen.errors import SafegenError\n"
        "from safegen.prompts import create_prompt_set\n"
        "try: prompts = create_prompt_set(sys.argv[1], local_files_only=True)\n"
        "except SafegenError as error: sys.exit(str(error))\n"
        "print(prompts.identity.source, [prompt.text for prompt in prompts])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, spec],
        env={**os.environ, "HF_HUB_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )


def test_a_data_set_in_the_hubs_cache_is_read(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "datasets--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "i2p_benchmark.csv").write_text("prompt\na cat\n")
    (folder / "snapshots" / commit / "more.csv").write_text("prompt\na dog\n")
    usual = on_the_hub("i2p:owner/name", tmp_path)
    assert usual.stdout.strip() == "owner/name/i2p_benchmark.csv ['a cat']", usual.stderr
    named = on_the_hub("i2p:owner/name,file=more.csv", tmp_path)
    assert named.stdout.strip() == "owner/name/more.csv ['a dog']", named.stderr


def test_what_the_hub_does_not_give_is_one_line(tmp_path: Path) -> None:
    done = on_the_hub("i2p:owner/name", tmp_path)
    assert done.returncode == 1
    assert "owner/name: its file i2p_benchmark.csv cannot be had" in done.stderr
    assert "download it and give its path" in done.stderr
    assert done.stderr.strip().count("\n") == 0
