"""The command line's entry: the verbs by name, and the options of all of them."""

from __future__ import annotations

from typing import Annotated

import typer

import unipetl
from unipetl.cli import (
    compare,
    doctor,
    evaluate,
    export,
    fetch,
    fold,
    import_,
    inspect,
    merge,
    methods,
    params,
    predict,
    push,
    report,
    reproduce,
    schema,
    search,
    serve,
    train,
)
from unipetl.cli.boundary import Verbs
from unipetl.cli.options import examples, paragraphs

app = typer.Typer(
    cls=Verbs,
    name="unipetl",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("the design space, method by method", "unipetl methods"),
        (
            "what methods cost on a model",
            'unipetl params -m roberta-base -x "mam(length=16, rank=16)" -x "lora(rank=8)"',
        ),
        ("train and compare methods on the built-in demo", "unipetl compare --demo --quick"),
    ),
)

#: The verbs, in the order of the help. Each is a module with a ``command`` and its EXAMPLES.
VERBS = (
    methods, params, train, evaluate, predict, compare, search, report, reproduce, inspect, fold, merge, import_,
    export, push, serve, schema, fetch, doctor,
)  # fmt: skip
#: What each verb is called; `import` is a word of Python's, so its module has a longer name.
NAMES = {verb.__name__.rpartition(".")[2].rstrip("_"): verb for verb in VERBS}

for word, verb in NAMES.items():
    app.command(word, help=paragraphs(verb.command), epilog=verb.EXAMPLES)(verb.command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"unipetl {unipetl.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what the libraries log and warn of.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Parameter-efficient transfer learning as one design space: adapters, prefix tuning, LoRA and what lies between.

    --verbose and --debug may stand anywhere. Exit codes: 0 done, 1 an error, 2 wrong usage, 130 interrupted.
    """
