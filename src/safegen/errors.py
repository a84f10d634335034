"""Errors that a user can mend. The command line prints them as one line and exits with 2."""

from __future__ import annotations


class SafegenError(Exception):
    """Something the user gave or has cannot be used; the message says what, where and the mend."""


def first_line(reason: object) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    if type(reason).__name__ == "LocalEntryNotFoundError":  # whose advice is for programs
        return "it is not in the hub's cache, and the hub was not or cannot be asked"
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]


class MissingExtraError(SafegenError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional package; install it: pip install 'safegen[{extra}]'"
        )
