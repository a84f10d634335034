"""Location of a prompt set's file: on this machine, or in a data set on the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from safegen.errors import SafegenError, first_line

_FILE_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def locate(
    place: str, file: str | None, usual_file: str | None, local_files_only: bool
) -> tuple[Path, str]:
    """Locate the file, fetched if needed; returns its path and the source to record.

    Args:
        place: a path, or ``OWNER/NAME`` of a data set on the hub.
        file: file of the data set (default: ``usual_file``).
        local_files_only: take the data set from the cache only.

    Raises:
        SafegenError: the file is missing, is a folder, or the hub does not give it.
    """
    path = Path(place).expanduser()
    try:
        folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise SafegenError(f"{place}: is no usable path ({error.strerror})") from error
    if folder:
        raise SafegenError(f"{place}: is a folder; give the file in it")
    if exists and file is not None:
        raise SafegenError(f"{place}: is a file here, not on the hub; leave out file={file}")
    if exists and not path.is_file():
        raise SafegenError(f"{place}: is a pipe or device, which is read once; give a file")
    if exists:
        return path, path.name
    if path.suffix.lower() in _FILE_SUFFIXES or not _HUB_ID.fullmatch(place):
        raise SafegenError(
            f"{place}: no such prompt file; check the path, or give OWNER/NAME of a data set "
            "on the Hugging Face hub"
        )
    wanted = file or usual_file
    if wanted is None:
        raise SafegenError(f"{place}: say which file of the data set to read: file=NAME")
    return _fetch(place, wanted, local_files_only), f"{place}/{wanted}"


def _fetch(dataset: str, file: str, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    # The hub's notes on retries would stand beside the one-line error.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(
            hf_hub_download(dataset, file, repo_type="dataset", local_files_only=local_files_only)
        )
    except GatedRepoError as error:
        raise SafegenError(
            f"{dataset}: asks for consent; give it at https://huggingface.co/datasets/{dataset}, "
            "then log in here with: hf auth login"
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise SafegenError(
            f"{dataset}: its file {file} cannot be had from the Hugging Face hub "
            f"({first_line(error)}); "
            "check both names and the connection, or download it and give its path"
        ) from error
