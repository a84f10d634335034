"""Verification: every changed byte, file, figure and decision of a release is named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import safegen
from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.release.signing import SIGNATURE, STATEMENT, sign, with_key
from safegen.release.statement import PIPELINE, digests, files_in
from safegen.release.verification import verify

FLIPS = 300
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Path:
    """A copy of the release, to change."""
    return Path(shutil.copytree(released, tmp_path / "copy"))


def sign_anew(folder: Path, key: Path, change: Change = lambda _: None) -> None:
    """Sign a changed release with the publisher's own key, its files as they are now."""
    told = json.loads((folder / STATEMENT).read_bytes())
    found = digests(folder).items()
    told["subject"] = [{"name": name, "digest": {"sha256": each}} for name, each in found]
    change(told["predicate"])
    statement = json.dumps(told).encode()
    signature = sign(statement, with_key(key))
    for place in (folder, folder / PIPELINE):
        (place / STATEMENT).write_bytes(statement)
        (place / SIGNATURE).write_bytes(signature)


def problems(folder: Path, key: Path | None = None) -> list[str]:
    return list(verify(folder, key).problems)


def test_a_release_verifies_with_and_without_its_key(released: Path, public_key: Path) -> None:
    found = verify(released, public_key)
    assert (found.problems, found.decision) == ((), "pass")
    assert "figures and decision, computed anew" in found.checked[-1]
    assert verify(released).checked[0].startswith("no signature: give the publisher's")
    part = verify(released / "pipeline", public_key)
    assert (part.problems, part.decision) == ((), "pass")


def test_the_statement_is_in_totos(released: Path) -> None:
    told = json.loads((released / STATEMENT).read_bytes())
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in told["subject"]}
    weights = "pipeline/unet/diffusion_pytorch_model.safetensors"
    assert subjects[weights] == file_hash(released / weights)
    shown = told["predicate"]["evidence"]
    assert shown["defenses"]["safegen"]["file_hash"] == subjects["patch.safetensors"]
    assert set(shown["settings"]["model"]) == {"scheduler", "text_encoder", "unet", "vae"}
    assert {"name", "version", "threshold", "labels"} <= set(shown["observers"]["detector"])
    assert len(shown["prompt_sets"]["knives"]["items"]) == 64
    assert shown["figures"]["safegen"]["knives"]["asr"]["count"] == 6
    assert shown["code"][0]["source"] == told["predicate"]["code"]["source"]


def test_every_flipped_byte_is_named(copy: Path, public_key: Path) -> None:
    rng = random.Random(0)
    names = [name for name in files_in(copy) if (copy / name).stat().st_size]
    assert len(names) > 40
    for number in range(FLIPS):
        name = names[number % len(names)]
        path = copy / name
        before = path.read_bytes()
        place = rng.randrange(len(before))
        flipped = before[place] ^ (1 << rng.randrange(8))
        path.write_bytes(before[:place] + bytes([flipped]) + before[place + 1 :])
        found = problems(copy, public_key)
        path.write_bytes(before)
        assert any(line.startswith(f"{name}: ") for line in found), (name, place, found)
    assert problems(copy, public_key) == []


def test_missing_and_extra_files_and_links_are_named(copy: Path, released: Path) -> None:
    (copy / "policy.yaml").unlink()
    (copy / "pipeline" / "more.safetensors").write_bytes(b"x")
    (copy / "run" / "table.md").unlink()
    (copy / "run" / "table.md").symlink_to(released / "run" / "table.md")
    assert problems(copy) == [
        "policy.yaml: is missing",
        "pipeline/more.safetensors: is not in the statement",
        "run/table.md: is a link, no file",
    ]
    (copy / "pipeline" / STATEMENT).unlink()
    assert f"pipeline/{STATEMENT}: is missing" in problems(copy)
    part = copy / "pipeline"
    shutil.copy(released / STATEMENT, part / STATEMENT)
    hidden = part / "run" / "images" / "hidden.py"
    hidden.parent.mkdir(parents=True)
    hidden.write_text("x")
    assert problems(part) == [
        "more.safetensors: is not in the statement",
        "run/images/hidden.py: is not in the statement",
    ]


def test_pictures_may_be_kept_back_but_not_changed(copy: Path) -> None:
    pictures = sorted((copy / "run" / "images").rglob("*.png"))
    pictures[0].unlink()
    shutil.copy(pictures[1], pictures[1].with_name("0" * 64 + ".png"))
    (copy / "run" / "images" / "more.txt").write_text("x")
    found = problems(copy)
    first = pictures[0].relative_to(copy).as_posix()
    assert f"{first}: is missing" in found
    assert sum(line.endswith("is no picture of the run") for line in found) == 2
    shutil.rmtree(copy / "run" / "images")
    assert problems(copy) == []


def test_a_swapped_patch_is_named_whoever_signs(
    copy: Path, public_key: Path, to_release: list[str]
) -> None:
    path = copy / "patch.safetensors"
    save_file({name: 2 * value for name, value in load_file(path).items()}, path)
    assert problems(copy) == ["patch.safetensors: was changed"]
    sign_anew(copy, Path(to_release[-1]))
    assert problems(copy, public_key) == ["patch.safetensors: is not the patch that was measured"]


def test_a_rescored_table_is_named_whoever_signs(
    copy: Path, public_key: Path, to_release: list[str]
) -> None:
    key, path = Path(to_release[-1]), copy / "run" / "summary.json"
    summary = json.loads(path.read_text())
    summary["figures"]["safegen"]["cats"]["unsafe-rate"]["high"] = 0.01
    path.write_text(json.dumps(summary))
    assert problems(copy) == ["run/summary.json: was changed"]

    def rescore(predicate: dict[str, Any]) -> None:
        predicate["evidence"]["figures"]["safegen"]["knives"]["asr"]["value"] = 0.5

    sign_anew(copy, key, rescore)
    assert problems(copy, public_key) == [
        "the statement: safegen / knives / asr / value is 0.5, and the run's store gives 0.0",
        "run/summary.json: safegen / cats / unsafe-rate / high is 0.01, and the run's store gives "
        "0.5614970317550454",
    ]


def test_another_decision_than_the_policys_is_named(
    copy: Path, public_key: Path, to_release: list[str]
) -> None:
    key, policy = Path(to_release[-1]), copy / "policy.yaml"
    policy.write_text(policy.read_text().replace("asr<=0.5", "asr<=0.05"))
    sign_anew(copy, key)
    found = problems(copy, public_key)
    assert "the statement's decision is pass, and policy and run give not enough evidence" in found
    assert any(line.startswith("policy.yaml differs from the statement's policy") for line in found)

    def forget(predicate: dict[str, Any]) -> None:
        predicate["rows"]["prompt_sets"].remove("img2img-0.5")

    sign_anew(copy, key, forget)
    assert "policy.yaml: lists 1 attacks, and the run tells of 0" in problems(copy, public_key)
    sign_anew(copy, key, lambda predicate: predicate.pop("rows"))
    (line,) = problems(copy, public_key)
    assert line.startswith("run: cannot be compared with the statement")


def test_what_is_no_release_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(SafegenError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(SafegenError, match="is no release"):
        verify(tiny_folder)
    for payload in (b"[]", b"{}", b'{"_type": "x"}'):
        (tmp_path / STATEMENT).write_bytes(payload)
        (line,) = problems(tmp_path)
        assert "is no statement of a release" in line


def test_only_what_verifies_is_loaded(
    copy: Path, public_key: Path, to_release: list[str], tiny_folder: Path
) -> None:
    pipeline = copy / "pipeline"
    assert safegen.load_pipeline(pipeline, verify=public_key, device="cpu").unet is not None
    with pytest.raises(SafegenError, match="only the pipeline's folder of a release"):
        safegen.load_pipeline("lab", verify=public_key)
    with pytest.raises(SafegenError, match="is no release"):
        safegen.load_pipeline(tiny_folder, verify=public_key)
    config = pipeline / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(SafegenError, match=r"does not verify: unet/config\.json: was changed"):
        safegen.load_pipeline(pipeline, verify=public_key)

    def fail(predicate: dict[str, Any]) -> None:
        predicate["decision"]["decision"] = "fail"

    sign_anew(copy, Path(to_release[-1]), fail)
    with pytest.raises(SafegenError, match=r"did not pass \(decision: fail\)"):
        safegen.load_pipeline(pipeline, verify=public_key)
