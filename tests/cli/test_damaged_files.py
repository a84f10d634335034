"""Files that a schema refuses, on the command line: one line that names the file, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

ZERO = torch.zeros(2, 4, 8, 8)
NEEDED = {
    "patch": {"form": "safegen-patch/1", "metadata": {"base": {}}},
    "latents": {
        "form": "safegen-triplet-latents/1",
        "metadata": {"captions": ["a", "b"], "vae": "0", "source": {}},
    },
}
WHOLE = {
    "patch": {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2)},
    "latents": {"unsafe": ZERO, "censored": ZERO + 1, "benign": ZERO},
}
HEADERS = {
    "is no safegen": "ABSENT",
    "not valid JSON": "{",
    "not valid JSON (": "[" * 100_000,
    "does not name the format": "[]",
    "does not name the format ": '"text"',
    "not name the format": "null",
    "its header's metadata are missing": "FORM",
}
METADATA: list[tuple[str, Any, str]] = [
    ("patch", None, "metadata are missing or no object"),
    ("patch", [], "metadata are missing or no object"),
    ("patch", {"base": "lab"}, "'base' is not an object"),
    ("patch", {"method": 3}, "'method' is not text"),
    ("latents", {"vae": "0", "source": {}}, "lack 'captions'"),
    ("latents", {"captions": "ab", "vae": "0", "source": {}}, "'captions' is not a list"),
    ("latents", {"captions": [1, 2], "vae": "0", "source": {}}, "a caption that is no text"),
    ("latents", {"captions": ["a"], "vae": "0", "source": {}}, "1 captions for 2 benign"),
]
TENSORS: list[tuple[str, dict[str, torch.Tensor | None], str]] = [
    *(
        ("patch", {"b.weight": torch.ones(2).to(dtype)}, f"'b.weight' is {name} instead of F16")
        for dtype, name in [
            (torch.int64, "I64"), (torch.bool, "BOOL"), (torch.complex64, "C64"),
            (torch.float8_e4m3fn, "F8_E4M3"),
        ]
    ),
    ("patch", {"a.weight": None, "b.weight": None}, "lacks all tensors"),
    ("patch", {"b.weight": torch.full((2,), torch.nan)}, "b.weight holds NaN"),
    ("latents", {"censored": None}, "lacks censored"),
    ("latents", {"other": ZERO}, "holds 'other', which is none of unsafe, censored, benign"),
    ("latents", {"censored": ZERO[:1]}, "'censored' has the shape (1, 4, 8, 8) instead of (2, 4"),
    ("latents", {"benign": ZERO[:, :3]}, "(2, 3, 8, 8) instead of (M, 4, 8, 8)"),
    ("latents", {"benign": ZERO[..., :4]}, "(2, 4, 8, 4) instead of (M, 4, 8, 8)"),
    ("latents", {"unsafe": ZERO[0]}, "(4, 8, 8) instead of (N, C, H, W)"),
    ("latents", {"unsafe": ZERO.half()}, "'unsafe' is F16 instead of F32"),
    ("latents", {"benign": ZERO / 0}, "benign latents hold NaN"),
    ("latents", {"unsafe": ZERO[:0], "censored": ZERO[:0]}, "no unsafe image"),
]  # fmt: skip


@pytest.fixture
def refused(tiny_folder: Path, tmp_path: Path, safegen: Any) -> Any:
    """Runs a command on a file that must be refused, and gives the message."""
    out = tmp_path / "out.safetensors"

    def run(kind: str, file: Path, *command: str) -> str:
        usual = ["apply", "MODEL", "FILE"]
        if kind == "latents":
            usual = ["edit", "MODEL", "--triplets", "FILE"]
        places = {"MODEL": str(tiny_folder), "FILE": str(file)}
        given = [places.get(word, word) for word in command or usual]
        code, _, message = safegen(*given, "--out", out)
        message = message.strip()
        assert (code, message.count("\n")) == (2, 0), message
        assert message.startswith(f"safegen: {file}: ")
        assert not out.exists()
        return str(message)

    return run


def write(path: Path, kind: str, header: str | None = None, **changes: Any) -> Path:
    """A file that is whole but for its header, metadata or tensors."""
    form, metadata = NEEDED[kind]["form"], changes.get("metadata", NEEDED[kind]["metadata"])
    tensors = {**WHOLE[kind], **changes.get("tensors", {})}
    said = {"safegen": header or json.dumps({"format": form, "metadata": metadata})}
    save_file(
        {name: value.clone().contiguous() for name, value in tensors.items() if value is not None},
        path,
        None if header == "ABSENT" else said,
    )
    return path


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize(("message", "header"), HEADERS.items())
def test_headers(refused: Any, tmp_path: Path, kind: str, message: str, header: str) -> None:
    form = json.dumps({"format": NEEDED[kind]["form"]})
    path = write(tmp_path / "odd.safetensors", kind, form if header == "FORM" else header)
    assert message.strip(" (") in refused(kind, path)


@pytest.mark.parametrize(("kind", "metadata", "message"), METADATA)
def test_metadata(refused: Any, tmp_path: Path, kind: str, metadata: Any, message: str) -> None:
    path = write(tmp_path / "odd.safetensors", kind, metadata=metadata)
    assert message in refused(kind, path)


@pytest.mark.parametrize(("kind", "tensors", "message"), TENSORS)
def test_tensors(refused: Any, tmp_path: Path, kind: str, tensors: Any, message: str) -> None:
    path = write(tmp_path / "odd.safetensors", kind, tensors=tensors)
    assert message in refused(kind, path)


@pytest.mark.parametrize("kind", WHOLE)
def test_damage(refused: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.safetensors"
    assert "check the path" in refused(kind, path)
    whole = write(path, kind).read_bytes()
    for content in (b"", whole[:4], whole[:-5], b"\xff" * 40, b"{}" * 40):
        path.write_bytes(content)
        assert "truncated or no safetensors file" in refused(kind, path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refused(kind, path)


@pytest.mark.parametrize(
    "command",
    [
        ["export", "MODEL", "FILE", "--format", "patch"],
        ["export", "MODEL", "FILE", "--format", "lora"],
        ["generate", "MODEL", "--prompt", "a cat", "--patch", "FILE"],
        [
            "evaluate",
            "MODEL",
            "--defense",
            "safegen:FILE",
            "--unsafe",
            "lab:explicit",
            "--detector",
            "lab",
        ],
        ["export", "FILE", "FILE", "--format", "single-file"],
    ],
)
def test_every_reader(refused: Any, tmp_path: Path, command: list[str]) -> None:
    path = write(tmp_path / "odd.safetensors", "patch", metadata=3)
    filled = [word.replace("FILE", str(path)) for word in command]
    assert "metadata are missing" in refused("patch", path, *filled)
