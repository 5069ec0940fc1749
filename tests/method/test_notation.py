"""The notations of a method: text, YAML, JSON, and the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from unipetl import catalogue, parse
from unipetl.errors import MethodError, NotationError
from unipetl.forms import Bottleneck, LowRank
from unipetl.method import Method, Modification, json_schema

SCHEMA = Path(__file__).parents[2] / "docs" / "method.schema.json"


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_survives_yaml_json_and_the_schema(name):
    method = catalogue.find(name).build()
    assert parse(name) == method
    assert Method.from_yaml(method.to_yaml()) == method
    assert parse(json.dumps(method.plain())) == method
    jsonschema.validate(yaml.safe_load(method.to_yaml()), json_schema())


def test_the_published_schema_is_the_code_s():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(json_schema()))


@pytest.mark.parametrize(
    "data",
    [
        {"modifications": [{"representation": "fnn", "form": {"bottleneck": {"rank": 1}}}]},
        {"modifications": [{"representation": "ffn", "form": {"bottleneck": {"rnak": 1}}}]},
        {"modifications": [{"representation": "ffn"}]},
        {"modifications": [], "trained": ["head"]},
        {"train": ["heads"]},
    ],
)
def test_the_schema_and_the_reader_refuse_the_same(data):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())
    with pytest.raises(MethodError):
        Method.from_plain(data)


def test_text_reads_calls_sums_and_bare_words():
    assert parse("lora(rank=8)").modifications[0].form == LowRank(rank=8)
    mixed = parse("prefix_tuning(length=3, mlp=None) + lora(rank=2, init=bert)")
    assert len(mixed.modifications) == 3
    assert mixed.modifications[1].form == LowRank(rank=2, init="bert")
    assert parse("bitfit + lora").train == ("bias",)
    assert parse("lora(rank=8, alpha=32)") == parse("lora(rank=8, scale=4.0)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lorra", "Did you mean 'lora'"),
        ("lora(rnak=3)", "Did you mean 'rank'"),
        ("lora(8)", r"lora\(rank=\.\.\.\)"),
        ("lora(rank=", "never closed"),
        ("lora(rank=2) + ", "invalid syntax"),
        ("mam(length=-1)", "greater than 0"),
        ("lora(rank=0)", "greater than 0"),
        ("lora(at=ffm)", "Did you mean 'ffn'"),
        ("lora(rank='many')", "integer"),
        ("__import__('os').system('true')", "no catalogue entry"),
        ("lora(rank=open('x'))", "not a plain value"),
        ("lora(**{})", r"'\*\*' is not part"),
        ("", "expected text such as"),
        ("modifications: [", "not YAML"),
        ("modifications: 3", "must be a list"),
        ("modifications: [3]", r"modifications\[0\]: expected a mapping"),
        ("modification: []", "Did you mean 'modifications'"),
        ("train: 3", "must be a list of names"),
        ("train: [[a]]", "must be a list of names"),
        ("train: heads", "Did you mean 'head'"),
        ("modifications: [{1: 2}]", "mapping of the four axes"),
        ("modifications: [{representation: {name: ffn, layers: [a, 1]}, form: rescale}]", "layers"),
        ("modifications: [{representation: ffn, form: {low_rank: {1: 2}}}]", "must be a mapping"),
        ("mam(mlp=0)", "greater than 0"),
        ("lora(at=[])", "names no place"),
        ("lora(at=[ffn.upp])", "Did you mean 'ffn.up'"),
        ("lora(at=ffn().up)", "not a plain value"),
        ("lora(at=[ffn, x()])", "not a plain value"),
        ("adapter(at=[])", "names no place"),
        ("lora(alpha=x)", "expected a number"),
        ("none", "no method but the lack of one.*zero-shot"),
        ("None", "no method but the lack of one"),
        ("lora + none", "no method but the lack of one"),
        ("lora(rank=2, rank=3)", "rank is given twice"),
        ("bitfit(rank=2)", "it has no settings"),
        ("lora(rank=true)", "rank: true and false are no value here"),
        ("lora(rank=False)", "rank: true and false are no value here"),
        ("lora(at=true)", "at: true and false"),
        ("lora(alpha=true)", "alpha: true and false"),
        ("mam(mlp=true)", "mlp: true and false"),
        ("lora(scale=true)", "scale: true and false"),
        ("modifications: [{representation: {name: ffn, layers: [true]}, form: rescale}]", "layers: true and false"),
        ("modifications: [{representation: ffn, form: {low_rank: {rank: true}}}]", "rank: true and false"),
        (
            "modifications: [{representation: ffn, form: {head_attention: {reparametrization: {width: true}}}}]",
            "width: true and false",
        ),
    ],
)
def test_wrong_text_is_explained(text, words):
    with pytest.raises((NotationError, MethodError), match=words):
        parse(text)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"form": {"botleneck": {"rank": 1}}}, "Did you mean 'bottleneck'"),
        ({"form": {"bottleneck": {"rank": 1, "activaton": "relu"}}}, "Did you mean 'activation'"),
        ({"form": {"bottleneck": {}}}, "'rank' is required"),
        ({"form": {"bottleneck": 3}}, "must be a mapping"),
        ({"form": ["bottleneck"]}, "expected a name or a mapping"),
        ({"representation": "atention"}, "Did you mean 'attention'"),
        ({"representation": {"name": "ffn", "layers": []}}, "selects nothing"),
        ({"representation": {"name": "ffn", "stack": "Encoder"}}, "'encoder' or 'decoder'"),
        ({"insertion": "paralel"}, "Did you mean 'parallel'"),
        ({"composition": {"add": {"scale": 0.0}}}, "other than 0"),
        ({"composition": {"add": {"scale": float("nan")}}}, "finite"),
        ({"composition": "gated"}, "Did you mean 'gate'"),
        ({"compositon": "gate"}, "Did you mean 'composition'"),
    ],
)
def test_a_wrong_axis_value_is_explained(axes, words):
    with pytest.raises(MethodError, match=words):
        Modification(**{"representation": "ffn", "form": {"bottleneck": {"rank": 1}}, **axes})


def test_names_need_no_quotes():
    assert parse("lora(at=ffn.up)") == parse("lora(at='ffn.up')")
    assert parse("lora(at=[ffn.up, attention.query])") == parse("lora(at=['ffn.up', 'attention.query'])")
    assert parse("adapter(at=[attention, ffn], init=lora)") == parse("adapter(at=['attention', 'ffn'], init='lora')")


def test_truth_is_a_value_where_truth_is_asked_for():
    text = "modifications: [{representation: {name: ffn, optional: true}, form: {bottleneck: {rank: 2, bias: false}}}]"
    (one,) = parse(text).modifications
    assert one.representation.optional is True
    assert one.form.bias is False

    class Mine(Bottleneck):
        anything: Any = None
        either: int | bool = 0

    assert (Mine(rank=1, anything=True, either=True).anything, Mine(rank=1, either=True).either) == (True, True)
    with pytest.raises(MethodError, match="rank: true and false"):
        Mine(rank=True)


def test_methods_are_immutable_data():
    method = parse("mam")
    assert hash(method) == hash(parse("mam"))
    with pytest.raises(Exception, match="frozen"):
        method.train = ("head",)  # type: ignore[misc]
    with pytest.raises(Exception, match="frozen"):
        method.modifications[0].form.length = 3  # type: ignore[attr-defined]


def test_a_third_party_form_needs_no_registration():
    class Mine(Bottleneck):
        tag = "mine"

    one = Modification(representation="ffn", form=Mine(rank=2))
    assert type(one.form) is Mine
    assert one.plain()["form"] == {"mine": {"rank": 2}}


def test_table_1_rows_come_from_the_data():
    row = parse("prefix_tuning").rows()[0]
    assert row["functional form"] == "softmax(x W_q P_kᵀ) P_v"
    assert row["composition"] == "h ← (1-λ)h + λΔh"
    assert parse("lora(scale=4)").rows()[0]["composition"] == "h ← h + 4·Δh"
    assert parse("scaled_parallel_adapter(scale=learned)").rows()[0]["composition"] == "h ← h + s·Δh"
    assert parse("adapter").rows()[0]["functional form"] == "W_up ReLU(W_down h + b_down) + b_up"
