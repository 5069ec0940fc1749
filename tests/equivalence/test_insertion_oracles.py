"""Every representation of every family with every insertion that makes sense there, against plain functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

import unipetl
from equivalence.checks import CLOSE, ORACLE_FAMILIES, case, compare, randomize
from equivalence.oracle_changes import Changes
from unipetl import Bottleneck, LowRank, Method, Modification
from unipetl.insertion import Parallel, Sequential
from unipetl.representation import NAMES, Representation

VECTORS = [name for name in NAMES if name not in ("input", "embedding")]  # embeddings: test_embedding_oracles.py
FAMILIES = [name for name in ORACLE_FAMILIES if name != "t5"]  # it differs from its gated twin by the gate alone
GATED = {"t5_gated", "llama"}
POST_NORM = {"roberta", "bart"}
FORM = Bottleneck(rank=3, activation="tanh")


def points() -> Iterator[tuple[str, str, str, str]]:
    for family, place in itertools.product(FAMILIES, VECTORS):
        if place == "ffn.gate" and family not in GATED:
            continue
        yield family, place, "sequential", "itself"
        if place != "ffn.residual":
            yield family, place, "parallel", "normed"
            yield family, place, "parallel", "residual"
        elif family in POST_NORM:
            yield family, place, "sequential", "normed"


def point(place: str, kind: str, reads: str, form: object = FORM) -> Method:
    insertion = Sequential(reads=reads) if kind == "sequential" else Parallel(reads=reads)
    return Method(modifications=(Modification(representation=place, form=form, insertion=insertion),))


@pytest.mark.parametrize(("family", "place", "kind", "reads"), list(points()))
def test_a_bottleneck_reads_and_joins_where_the_paper_says(family: str, place: str, kind: str, reads: str) -> None:
    compare(case(family), point(place, kind, reads))


@pytest.mark.parametrize(
    ("family", "place"), [p[:2] for p in points() if p[3] == "itself" and p[0] in ("bart", "gpt2", "t5_gated")]
)
def test_a_low_rank_map_goes_wherever_a_bottleneck_goes(family: str, place: str) -> None:
    kind, reads = ("sequential", "itself") if place == "ffn.residual" else ("parallel", "normed")
    compare(case(family), point(place, kind, reads, LowRank(rank=2)))


#: Points that are the same function under another name; any two others must differ.
SAME = {
    "ffn.down sequential": "ffn",
    "ffn sequential": "ffn",
    "attention.output sequential": "attention",
    "attention sequential": "attention",
}


@pytest.mark.parametrize("family", ["roberta", "mbart"])
def test_the_oracle_tells_every_point_from_every_other(family: str) -> None:
    """With the same tensors at another place or with another input, the numbers change: no test above is idle."""
    one = case(family)
    seen: dict[str, torch.Tensor] = {}
    for _, place, kind, reads in (p for p in points() if p[0] == family):
        attachment = unipetl.attach(one.model, point(place, kind, reads))
        try:
            tensors = attachment.tensors()
            randomize(tensors)
            result = one.oracle(Changes(attachment.method, tensors))
        finally:
            attachment.detach()
        name = SAME.get(f"{place} {kind}", f"{place} {kind} {reads}")
        own_input = place in ("attention.query", "attention.key", "attention.value", "ffn.up", "ffn.down", "block")
        if kind == "parallel" and (family in POST_NORM or own_input or place == "attention.output"):
            name = f"{place} parallel"  # what it reads is the residual stream, or the projection's own input
        if family not in POST_NORM and name == "ffn.residual sequential itself":
            name = "block sequential itself"  # nothing stands between them in a pre-norm block
        last = result[next(reversed(result))]
        torch.testing.assert_close(last, seen.setdefault(name, last), **CLOSE)
    for (first, a), (second, b) in itertools.combinations(seen.items(), 2):
        assert (a - b).abs().max() > 1e-5, f"{first} and {second} give the same numbers"


NARROWED = {
    "bart": [
        (Representation(name="attention.value", stack="encoder"), {"encoder.0.self", "encoder.1.self"}),
        (Representation(name="attention.value", kind="cross"), {f"decoder.{i}.cross" for i in range(3)}),
        (Representation(name="attention.value", layers=(-1,)), {"encoder.1.self", "decoder.2.self", "decoder.2.cross"}),
        (Representation(name="attention.value", layers=(2,)), {"decoder.2.self", "decoder.2.cross"}),
        (Representation(name="attention.value", stack="decoder", kind="self", layers=(0, -1)), {
            "decoder.0.self", "decoder.2.self",
        }),
    ],
    "llama": [
        (Representation(name="attention.value", layers=(1,)), {"decoder.1.self"}),
        (Representation(name="attention.value", kind="self", layers=(-2,)), {"decoder.0.self"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "number"), [(name, i) for name, found in NARROWED.items() for i in range(len(found))]
)
def test_a_narrowed_representation_changes_those_places_and_no_other(family: str, number: int) -> None:
    representation, wanted = NARROWED[family][number]
    method = Method(modifications=(Modification(representation=representation, form=FORM, insertion="parallel"),))
    found = {one.site.name for one in unipetl.plan(method, case(family).model).placements}
    assert found == {f"{name}_attention.value" for name in wanted}
    compare(case(family), method)


def test_the_residual_stream_is_not_its_norm_in_a_pre_norm_model() -> None:
    one = case("mbart")
    results = []
    for reads in ("normed", "residual"):
        attachment = unipetl.attach(one.model, point("ffn", "parallel", reads))
        randomize(attachment.tensors())
        results.append(one.run()["decoder"])
        attachment.detach()
    assert (results[0] - results[1]).abs().max() > 1e-3
