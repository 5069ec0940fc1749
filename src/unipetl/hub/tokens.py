"""Tokens of the hub as a header can hold them, so that no transport complains of one by printing it."""

from __future__ import annotations

from unipetl.errors import PetlError


def clean(token: str | bool | None, error: type[PetlError]) -> str | bool | None:
    """Return a token without the white space around it, as a file or a paste has it.

    Raises:
        PetlError: of the class ``error``: it has signs that no token has. It is not shown.
    """
    if not isinstance(token, str):
        return token
    found = token.strip()
    if not found or not found.isascii() or not found.isprintable() or " " in found:
        raise error("the token is no token of the hub: it is empty, or has signs other than letters and digits.")
    return found
