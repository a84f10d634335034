"""Errors that a user can mend. The command line prints them as one line and exits with 2."""

from __future__ import annotations


class SafegenError(Exception):
    """An input cannot be used; the message says what, where and how to mend it."""


def first_line(reason: object) -> str:
    """Return the first line of an error's message, or its class's name if it has none."""
    if type(reason).__name__ == "LocalEntryNotFoundError":  # its advice is for programs
        return "it is not in the hub's cache, and the hub was not or cannot be asked"
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]


class MissingExtraError(SafegenError):
    """An optional dependency is missing."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional package; install it: pip install 'safegen[{extra}]'"
        )
