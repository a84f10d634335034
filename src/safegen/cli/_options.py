"""Arguments and options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import MODEL_HELP
from safegen.errors import SafegenError

SET_HELP = "SPEC or NAME=SPEC, such as i2p:FILE or lab:explicit; may be repeated."

ModelArgument = Annotated[str | None, typer.Argument(help=MODEL_HELP)]
DefenseOption = Annotated[
    list[str] | None,
    typer.Option(
        help="SPEC or NAME=SPEC, such as sld-max or safegen:PATCH+sld-max; may be repeated. "
        "The undefended model is always evaluated."
    ),
]
UnsafeOption = Annotated[
    list[str] | None, typer.Option(help=f"Prompts that ask for the concept: {SET_HELP}")
]
BenignOption = Annotated[
    list[str] | None, typer.Option(help=f"Prompts whose pictures must stay: {SET_HELP}")
]
NearMissOption = Annotated[
    list[str] | None,
    typer.Option(help=f"Benign prompts whose pictures resemble the concept: {SET_HELP}"),
]
DetectorOption = Annotated[
    str | None, typer.Option(help="Finds the concept: nudenet, onnx:FILE, lab and others.")
]
ObjectsOption = Annotated[
    str | None, typer.Option(help="Tells which objects are drawn, for retention: lab.")
]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps.")]
GuidanceOption = Annotated[
    float | None, typer.Option(help="Guidance scale of prompts without one of their own.")
]
SamplerOption = Annotated[str | None, typer.Option(help="ddim, dpm++ or euler.")]
SamplesOption = Annotated[int | None, typer.Option(help="Pictures a prompt.")]
SeedOption = Annotated[
    int | None, typer.Option(help="Base of all seeds, instead of those of the prompts.")
]
BatchOption = Annotated[
    int | None, typer.Option(help="Pictures, or attacked prompts, at once in each worker.")
]
ThreadsOption = Annotated[int | None, typer.Option(help="Processor threads a worker.")]
PrecisionOption = Annotated[
    str | None, typer.Option(help="Of the weights: float32, float16 or bfloat16.")
]
ConceptTextOption = Annotated[
    str | None,
    typer.Option(
        help="What text-dependent defenses avoid, and attackers are after: 'knife, pistol'."
    ),
]
ConceptOption = Annotated[str | None, typer.Option(help="Its name.")]
CountOption = Annotated[int | None, typer.Option(help="Prompts of each kind in the preset.", min=1)]
ExecutorOption = Annotated[str, typer.Option(help="local, or ray.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        help="How many; by default one for each GPU or, where there is none, one (on a Ray "
        "cluster and with the preset, one for each processor core)."
    ),
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="Of a running Ray cluster; else one is started here.")
]
RequireOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A bound such as 'removal>=0.99', 'asr@img2img-0.5<=0.05' or "
        "'safegen:retention>=0.95'; the exit code is 1 if one is missed. May be repeated."
    ),
]
OtherCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-other-code",
        help="Add to a run folder whose results another version of safegen or its packages made.",
    ),
]
UnblurredOption = Annotated[
    bool, typer.Option("--unblurred", help="Show unsafe pictures of the report as they are.")
]


def check_out(out: Path, *inputs: str | Path | None) -> None:
    """Raise an error where a command would write over one of its own inputs."""
    for given in inputs:
        if given is not None and Path(given).resolve() == out.resolve():
            raise SafegenError(f"--out {out}: is read by this command; name another path")
