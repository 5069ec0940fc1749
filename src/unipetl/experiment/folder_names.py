"""Names that people give and that become folders: which are safe on every file system, and which would collide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: The longest name, in bytes of UTF-8; file systems take 255, and a name gets endings.
LONGEST = 120
#: What some file system takes for a separator, a stream, a wildcard or a quote.
SPECIAL = re.compile(r'[/\\:*?"<>|]')
#: Kinds of signs that cannot be seen: controls, formats such as a zero-width space, halves of a sign, unassigned ones.
UNSEEN = ("Cc", "Cf", "Cs", "Cn")
#: Names that are devices in Windows, whatever their ending.
DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def wrong_with(name: str) -> str | None:
    """Return why a name makes no safe folder, as the end of a sentence; None if it does."""
    found = SPECIAL.search(name) or next((one for one in name if unicodedata.category(one) in UNSEEN), None)
    if not name.strip():
        return "is empty"
    if found:
        return f"has {found[0]!a} in it, which a folder's name cannot have everywhere"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if name.startswith("."):
        return "begins with a dot, which hides a folder"
    if DEVICES.fullmatch(name):
        return "is a device's name in Windows"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, and {LONGEST} are the most"
    return None


def colliding(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that are one folder where case or the spelling of accents does not count."""
    seen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if plain in seen:
            return seen[plain], name
        seen[plain] = name
    return None
