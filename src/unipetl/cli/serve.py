"""``unipetl serve``: one base, many attachments, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli.options import examples
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("two runs of one base; requests name the one they want", "unipetl serve formal=runs/first casual=runs/second"),
    ("saved attachments of a base in a folder", "unipetl serve adapters/a adapters/b --model base"),
    ("let requests load more, from one folder", "unipetl serve runs/first --allow-load runs"),
    (
        "ask it something",
        'curl -s localhost:8000/v1/classify --json \'{"attachment": "first", "inputs": "a fine film"}\'',
    ),
)


def command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="A run or a saved attachment, called by its folder, or NAME=PATH."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The base, where no run names it.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, ...; else a GPU if there is one.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8000,
    allow_load: Annotated[
        Path | None,
        typer.Option("--allow-load", metavar="DIR", help="Let requests load from this folder, replace and unload."),
    ] = None,
    max_inputs: Annotated[int, typer.Option(min=1, help="Texts of one request.")] = 64,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of one text.")] = 20_000,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one text.")] = 1_024,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens written for one text.")] = 256,
    max_beams: Annotated[int, typer.Option(min=1, help="Beams of a search.")] = 8,
    max_queue: Annotated[int, typer.Option(min=1, help="Texts that wait; more get 503.")] = 512,
    max_wait_ms: Annotated[float, typer.Option(min=0.0, help="How long a text waits for company in its batch.")] = 4.0,
    max_batch_rows: Annotated[int, typer.Option(min=1, help="Texts of one batch.")] = 32,
    max_batch_tokens: Annotated[int, typer.Option(min=1, help="Rows times longest row of one batch.")] = 8_192,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until an unanswered request gets 504.")] = 30.0,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds to finish in after a signal to stop.")] = 20.0,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log one JSON object a line.")] = False,
) -> None:
    """Serve one frozen model with many attachments: classification, generation and embeddings over HTTP.

    Every request names its attachment, and requests of different attachments are computed in one batch. All runs
    must be of one base, which is in memory once; a run of another base is refused. Endpoints: /v1/classify,
    /v1/generate, /v1/embed, /v1/attachments, /health, /metrics; /openapi.json describes them.

    There is no authentication: whoever reaches the address can ask. SIGTERM and SIGINT end the server once it has
    answered what it accepted.
    """
    if not runs and model is None:
        raise typer.BadParameter("name runs, or a base with --model.", param_hint="RUN")
    from unipetl.errors import ServingError
    from unipetl.serving import Engine, Limits, Service, Source, bind, run

    limits = Limits(
        max_inputs=max_inputs,
        max_characters=max_characters,
        max_tokens=max_tokens,
        max_new_tokens=max_new_tokens,
        max_beams=max_beams,
        max_queue=max_queue,
        max_wait_ms=max_wait_ms,
        max_batch_rows=max_batch_rows,
        max_batch_tokens=max_batch_tokens,
        timeout=timeout,
        grace=grace,
    )
    if allow_load is not None and not allow_load.is_dir():
        raise ServingError(f"--allow-load: {str(allow_load)!r} is no folder.")
    engine = Engine(model, device=device)
    with bind(host, port) as taken, hushed():
        served = [engine.load(one) for text in runs or () for one in Source.parse(text).each()]
        engine.load_base()
        service = Service(engine, served, limits, allow_load=allow_load)
        code = run(service, taken, as_json=json_log)
    if code:
        raise typer.Exit(code)
