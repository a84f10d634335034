"""What a file of triplets' latents holds: the input of an edit, and of defenses by pictures."""

from __future__ import annotations

from safegen.tensors import Entry, Schema

SCHEMA = Schema(
    form="safegen-triplet-latents/1",
    kind="file of triplet latents",
    maker="safegen triplets",
    tensors={
        "unsafe": Entry(("F32",), "N C H W"),
        "censored": Entry(("F32",), "N C H W"),
        "benign": Entry(("F32",), "M C H W"),
    },
    required={"captions": list, "vae": str, "source": dict},
)
"""Schema of triplet files."""
