"""Version and revision of the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
_HERE = Path(__file__).parent
_WITHOUT_EFFECT = ("cli", "metrics", "report")
"""Folders that run anew for every table, so that stored results do not depend on them."""

Code = Mapping[str, str]
"""Versions of the packages that a result depends on, and the digest of safegen's ``source``."""
_ONLY_TOLD = ("safegen", "python")
"""Versions that are recorded but not compared; safegen is compared by its source's digest."""


@cache
def code_revision() -> dict[str, Any]:
    """Identify the running code by version, commit and a digest of its files.

    Returns:
        ``version``; ``revision``, the git commit, and ``dirty``, whether the checkout differs from
        it, both None if neither git nor pip knows; ``source``, the SHA-256 of the modules that
        results depend on.
    """
    revision, dirty = _from_git() or _from_pip() or (None, None)
    source = _source_digest()
    return {"version": __version__, "revision": revision, "dirty": dirty, "source": source}


def code_name(code: dict[str, Any]) -> str:
    """Name a code revision, such as ``0.1.0+g1ef3f7d2``; a dirty checkout adds the digest, as in
    ``0.1.0+g1ef3f7d2.dirty.5c0ad1f4``."""
    parts = [f"g{code['revision'][:8]}"] if code["revision"] else []
    parts += ["dirty"] if code["dirty"] else []
    parts += [code["source"][:8]] if code["dirty"] is not False else []
    return f"{code['version']}+{'.'.join(parts)}"


def code_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return what a result records of its code: safegen's revision name, the digest of its
    ``source``, and the versions of packages."""
    from importlib.metadata import version

    code = code_revision()
    made_by = {"safegen": code_name(code), "source": str(code["source"])}
    return made_by | {name: version(name) for name in packages}


def other_code(made: Code, code: Code) -> str | None:
    """Describe the difference between the code that made a result and this one; None without one
    that results depend on."""
    compared = (name for name in code if name not in _ONLY_TOLD)
    changed = next((name for name in compared if made.get(name) != code[name]), None)
    if changed is None:
        return None
    name = changed if changed in made and changed != "source" else "safegen"
    return f"{name} is {made.get(name)} there and {code[name]} here"


def _source_digest() -> str:
    from hashlib import sha256

    digest = sha256()
    for file in sorted(_HERE.rglob("*.py")):
        place = file.relative_to(_HERE)
        if place.parts[0] not in _WITHOUT_EFFECT:
            digest.update(f"{place.as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _from_git() -> tuple[str, bool] | None:
    """Return the commit and whether the checkout differs from it; None outside a checkout."""
    import os
    import subprocess

    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_HERE), *arguments]
        done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        # An environment inside another project's checkout does not belong to it.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        described = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.removesuffix("-dirty"), described.endswith("-dirty")


def _from_pip() -> tuple[str, bool] | None:
    """Return the commit that pip installed from (PEP 610); None without a repository."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = json.loads(distribution("safegen").read_text("direct_url.json") or "{}")
        return str(found["vcs_info"]["commit_id"]), False
    except (PackageNotFoundError, ValueError, KeyError):
        return None
