"""Loading of a pipeline, after its release was verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import SafegenError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_pipeline(
    source: str | Path, *, verify: str | Path | None = None, **options: Any
) -> DiffusionPipeline:
    """Load a diffusers text-to-image pipeline, as ``safegen.models.loading.load_pipeline`` does.

    Args:
        source: a profile's name such as ``lab``, a diffusers folder, a Hugging Face id, or a single
            file in the original layout.
        verify: file of the publisher's public key (PEM). ``source`` must then be the pipeline's
            folder of a release that passed, every file as it was signed with that key.
        options: ``dtype``, ``device``, and the options of ``safegen.models.options.LoadOptions``.

    Raises:
        SafegenError: the source cannot be loaded, or does not verify.
    """
    if verify is not None:
        source = Path(source).resolve()  # a name such as lab would be loaded from elsewhere
        check_release(source, Path(verify))
    from safegen.models.loading import load_pipeline as load

    return load(source, **options)


def check_release(folder: Path, key: Path) -> None:
    """Refuse a pipeline's folder that is not as it was released and signed.

    Raises:
        SafegenError: the folder is no released pipeline, does not verify, or did not pass.
    """
    from safegen.release.verification import verify

    if not (folder / "model_index.json").is_file():
        raise SafegenError(
            f"{folder}: only the pipeline's folder of a release can be verified; give it, and "
            "download it first if it is on the hub"
        )
    found = verify(folder, key)
    if found.problems:
        more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise SafegenError(
            f"{folder}: does not verify: {found.problems[0]}{more}; download it again from its "
            "publisher"
        )
    if found.decision != "pass":
        raise SafegenError(
            f"{folder}: its release did not pass (decision: {found.decision}); load it without "
            "verify to inspect it"
        )
