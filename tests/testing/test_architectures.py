"""`check_architecture` accepts every family and refuses a table that is wrong."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from unipetl.architectures import Port, architecture_for
from unipetl.errors import CheckError
from unipetl.forms import Features
from unipetl.testing import FAMILIES, SMALL, build, check_architecture
from unipetl.testing.compare import same

#: What shares an attention's softmax and what stands beside a sub-layer, in one method: each law meets both at once.
QUICK = {"prefix beside adapters": f"{SMALL['prefix_tuning']} + {SMALL['parallel_adapter']}"}
HEADS = [(family, head) for family in FAMILIES for head in family.heads]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family(family):
    model = build(family)
    before = copy.deepcopy(model.state_dict())
    report = check_architecture(model, methods=QUICK)
    assert report == dict.fromkeys(QUICK, "ok")
    for name, value in model.state_dict().items():
        same(value, before[name], f"{name} of the model that was checked")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("family", "head"), HEADS, ids=[f"{family}-{head}" for family, head in HEADS])
def test_every_method_on_every_class(family, head):
    report = check_architecture(build(family, head))
    refused = {name for name, answer in report.items() if answer != "ok"}
    assert all(report[name].startswith("refused: ") for name in refused)
    assert refused <= {"bitfit", "prompt_tuning", "pfeiffer, official", "head_only"}


def test_refusals_have_reasons():
    report = check_architecture(build("llama"), methods={"bitfit": "bitfit", "pfeiffer": SMALL["pfeiffer, official"]})
    assert report["bitfit"].startswith("refused: train 'bias'")
    assert "pre-norm" in report["pfeiffer"]


def table_with(name, **changes):
    """The family's table with its only stack changed."""
    table = architecture_for(name)
    return replace(table, stacks=(replace(table.stacks[0], **changes),))


def test_a_table_may_be_passed():
    assert check_architecture(build("gpt2"), methods={"lora": "lora(rank=1)"}, architecture=table_with("gpt2")) == {
        "lora": "ok"
    }


def test_planted_table_with_a_wrong_place():
    wrong = replace(architecture_for("gpt2").stacks[0].feed_forward, result=Port("mlp.c_fc", "output"))
    with pytest.raises(CheckError, match=r"GPT2LMHeadModel, beside \(parallel_adapter\(rank=1\)\), starts"):
        check_architecture(
            build("gpt2"),
            methods={"beside": "parallel_adapter(rank=1)"},
            architecture=table_with("gpt2", feed_forward=wrong),
        )


@pytest.mark.parametrize(("name", "changes"), [("llama", {"rotary": False}), ("gpt2", {"positions": ()})])
def test_planted_table_that_forgets_positions(name, changes):
    with pytest.raises(CheckError, match="prompt"):
        check_architecture(
            build(name), methods={"prompt": "prompt_tuning(length=2)"}, architecture=table_with(name, **changes)
        )


def test_planted_table_with_a_result_before_its_input():
    attention, cross = architecture_for("gpt2").stacks[0].attentions
    wrong = replace(attention, result=Port("ln_1", "input"))
    with pytest.raises(CheckError, match="not reached before"):
        check_architecture(
            build("gpt2"),
            methods={"parallel": "parallel_adapter(rank=1, at=attention)"},
            architecture=table_with("gpt2", attentions=(wrong, cross)),
        )


def test_shapes_are_read_from_the_modules():
    from unipetl.testing.strategies import sites_of

    model = build("qwen3")
    shapes = {site.representation: site.shape for site in sites_of(model)}
    assert shapes["attention.query"] == Features(16, 32)
    assert shapes["attention.key"] == Features(16, 16)
