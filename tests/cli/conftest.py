"""The command line in this process, as a user meets it: exit code and both outputs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from safegen.cli import main
from safegen.models.kernels import use_plain_kernels

Safegen = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def safegen() -> Safegen:
    """Runs ``safegen`` and answers exit code, standard output and standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["safegen", *map(str, arguments)])
            with pytest.raises(SystemExit) as caught:
                main()
        use_plain_kernels(False)  # what one command asked for holds for its process
        return int(caught.value.code or 0), out.getvalue(), err.getvalue()

    return call
