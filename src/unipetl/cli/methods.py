"""``unipetl methods``: the catalogue as the paper's table 1, or one method explained."""

from __future__ import annotations

import ast
import inspect
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples, read_method
from unipetl.cli.plans import show_plan

if TYPE_CHECKING:
    from unipetl.catalogue import Entry
    from unipetl.method import Method

EXAMPLES = examples(
    ("every method: the paper's table 1", "unipetl methods"),
    ("one method explained", "unipetl methods mam"),
    ("with these settings, on this model", 'unipetl methods "lora(rank=8)" -m gpt2'),
    ("a method of your own, for a program", "unipetl methods my_method.yaml --json"),
)
HEADINGS = ("functional form", "insertion form", "modified representation", "composition")
#: What a method's parameters are shown on if no model is named.
DEFAULT_MODEL = "roberta-base"


def command(
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="A name, a call with settings, a sum of them, or a YAML file."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help=f"Count on this model; {DEFAULT_MODEL} if none."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the design space: every method's place on the four axes, or one method in full."""
    if method is None:
        _show_all(as_json=as_json)
    else:
        _show_one(method, model, as_json=as_json)


def _show_all(*, as_json: bool) -> None:
    from unipetl import catalogue

    built = [(entry, entry.build()) for entry in catalogue.ENTRIES]
    if as_json:
        screen.show_json([_described(entry, method) for entry, method in built])
        return
    rows: list[list[object]] = []
    for entry, method in built:
        for number, line in enumerate(table_rows(method)):
            rows.append([entry.name if number == 0 else "", *line, entry.source if number == 0 else ""])
    if screen.narrow():  # one place a line, and without the source
        rows = [[*row[:3], str(row[3]).replace(", ", "\n"), row[4]] for row in rows]
        headings = [heading.replace(" ", "\n") for heading in HEADINGS]
        screen.show_table(("method", *headings), rows, whole=("method", headings[2]))
    else:
        screen.show_table(("method", *HEADINGS, "from"), rows)
    screen.show(
        "\nh: the representation changed. x: what enters its sub-layer. Δh: the change. λ: attention on the prefix."
    )
    screen.show(
        "unipetl methods NAME explains one; a sum such as 'prefix_tuning(length=30) + lora(rank=8)' is a method too."
    )


def _show_one(text: str, model: str | None, *, as_json: bool) -> None:
    from unipetl import models, planning
    from unipetl.errors import PlanError

    method = read_method(text)
    entries = entries_in(text)
    skeleton = models.skeleton(models.resolve_config(model or DEFAULT_MODEL))
    plan, refusal = None, None
    try:
        plan = planning.plan(method, skeleton)
    except PlanError as error:
        if model is not None:
            raise
        refusal = str(error)
    if as_json:
        data = {"method": method.plain(), "rows": method.rows(), "entries": [_described(one) for one in entries]}
        screen.show_json(data | {"model": model or DEFAULT_MODEL, "plan": plan.to_dict() if plan else None})
        return
    for entry in entries:
        _show_entry(entry, _settings_in(text, entry.name))
    screen.show("Table 1", style="bold")
    screen.show_table(HEADINGS, table_rows(method))
    screen.show("\nNotation", style="bold")
    screen.show(method.to_yaml())
    screen.show(f"Parameters on {model or DEFAULT_MODEL}", style="bold")
    if plan is not None:
        show_plan(plan)
    else:
        screen.show(f"none: {refusal}\nName another model with --model.")


def _show_entry(entry: Entry, given: dict[str, Any]) -> None:
    screen.show(f"{entry.title} ({entry.name})", style="bold")
    screen.show(inspect.cleandoc(entry.build.__doc__ or ""))
    screen.show(f"\nSource: {entry.source}. In the paper: {entry.paper}.\n")
    settings, kinds = inspect.signature(entry.build).parameters, get_type_hints(entry.build)
    if settings:
        rows = [
            [name, repr(given.get(name, one.default)), repr(one.default), _words(kinds[name])]
            for name, one in settings.items()
        ]
        screen.show_table(("setting", "here", "default", "takes"), rows)
        screen.show()


def _words(kind: Any) -> str:
    """Return a type as its values: ``'paper' or 'official'`` for a Literal."""
    if get_origin(kind) is Literal:
        return " or ".join(repr(value) for value in get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_words(one) for one in get_args(kind))
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else "list of text"


def table_rows(method: Method) -> list[list[object]]:
    """Return a method's rows of the paper's table 1; places that are changed alike share one."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for row in method.rows():
        places = merged.setdefault((row["functional form"], row["insertion"], row["composition"]), [])
        places.append(row["representation"])
    lines: list[list[object]] = [
        [form, insertion, ", ".join(places), composition] for (form, insertion, composition), places in merged.items()
    ]
    return lines + [[f"(trains {group})", "-", "-", "-"] for group in method.train]


def entries_in(text: str) -> list[Entry]:
    """Return the catalogue's entries that a text notation names, each once."""
    from unipetl import catalogue

    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:  # YAML, or a file of it
        return []
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return [entry for entry in catalogue.ENTRIES if entry.name in named]


def _settings_in(text: str, name: str) -> dict[str, Any]:
    """Return what the first call of ``name`` in a text notation sets."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            return {one.arg: _value(one.value) for one in node.keywords if one.arg}
    return {}


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _described(entry: Entry, method: Method | None = None) -> dict[str, Any]:
    settings = inspect.signature(entry.build).parameters
    data: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "paper": entry.paper,
        "source": entry.source,
        "description": inspect.cleandoc(entry.build.__doc__ or ""),
        "settings": {name: one.default for name, one in settings.items()},
    }
    if method is not None:
        data |= {"rows": method.rows(), "train": list(method.train), "method": method.plain()}
    return data
