"""``--set NAME=VALUE``: a field of a recipe or a search, or an entry of one of its mappings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import typer


def set_field(data: dict[str, Any], setting: str, parts: Collection[str]) -> None:
    """Set what ``name=value`` says; the value is read as YAML. Fields in ``parts`` are mappings, set entry by entry."""
    import yaml

    name, sign, text = setting.partition("=")
    if not sign or not name:
        raise typer.BadParameter(f"expected NAME=VALUE, found {setting!r}.", param_hint="--set")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    part, dot, entry = name.partition(".")
    if dot and part in parts:
        before = data.get(part, {})
        if isinstance(before, dict):  # what reads the data refuses anything else
            data[part] = {**before, entry: value}
    else:
        data[name] = value
