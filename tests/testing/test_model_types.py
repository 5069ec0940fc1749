"""The named families, and others in turn, week by week, do what `docs/coverage.json` says of them."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path

import pytest
import transformers

from unipetl.testing.coverage import METHODS, check_type
from unipetl.testing.coverage_report import GROUPS, page, passes

ROOT = Path(__file__).parents[2]
COVERAGE = json.loads((ROOT / "docs/coverage.json").read_text(encoding="utf-8"))
#: One of every way to insert and every kind of place.
QUICK = ("lora", "parallel_adapter", "prefix_tuning")
#: Beside the families with tables, which are tested in test_architectures.py.
NAMED = (
    "vit", "clip", "dinov2", "swin", "wav2vec2", "hubert", "llava", "gemma2", "phi", "phi3", "olmo", "gpt_neox", "opt",
    "falcon", "gptj", "bloom", "mixtral", "deepseek_v3", "mt5", "pegasus", "led", "m2m_100", "deberta-v2", "mpnet",
)  # fmt: skip


#: Named families whose small models take their time: windows, and convolutions over sound.
LARGE = {"swin", "wav2vec2", "hubert"}
#: Each method of its own; one after the other they take three times as long as all of them in one method.
APART = [pytest.param(False, id="in one"), pytest.param(True, id="apart", marks=pytest.mark.slow)]


def of_the_week(number):
    """Some of the types that were checked, others every week."""
    year, week, _ = datetime.datetime.now(datetime.UTC).isocalendar()
    types = [name for name, row in COVERAGE["types"].items() if row["status"] == "checked"]
    return random.Random(f"{year}-{week}").sample(types, number)


def held_to_its_row(model_type, methods):
    """Check a type again: nothing may have become worse."""
    row = check_type(model_type, methods={name: METHODS[name] for name in methods})
    assert row.status == "checked"
    written = COVERAGE["types"][model_type]["methods"]
    for name, result in row.methods.items():
        assert not result.startswith("bug"), f"{name}: {result}"
        if written.get(name) == "ok":
            assert result == "ok", name


def takes_them_in_one(model_type, methods, seconds=300):
    """Check what the row says the type takes as one method: every law then meets every place and way to insert.

    Beside a prefix nothing promises to start at zero; that each change does so alone is seen with the methods apart,
    and in the laws of the families with tables.
    """
    written = COVERAGE["types"][model_type]["methods"]
    text = " + ".join(METHODS[name] for name in methods if written.get(name) == "ok")
    assert text
    row = check_type(model_type, methods={"in one": text}, seconds=seconds)
    if seconds < 300 and row.status.startswith("given up"):
        pytest.skip(f"{model_type}: {row.status}; the slow tests have the time")
    assert (row.status, row.methods) == ("checked", {"in one": "ok"})


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("model_type", NAMED)
def test_a_named_family(model_type, apart):
    assert model_type in COVERAGE["types"]
    methods = QUICK[:1] if model_type in LARGE and not apart else QUICK
    (held_to_its_row if apart else takes_them_in_one)(model_type, methods)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "method"),
    [
        ("mobilevit", "adapter"),  # the first stage under a checkpoint begins with the image
        ("pvt_v2", "adapter"),  # results inside results
        ("timesformer", "parallel_adapter"),  # attention through time
        ("mask2former", "parallel_adapter"),  # (tokens, rows) turned inside an attention that adds positions
        ("sam", "adapter"),  # the first of the masks is left out
        ("mgp-str", "lora"),  # several heads' logits
    ],
)
def test_a_type_with_a_structure_of_its_own(model_type, method):
    held_to_its_row(model_type, (method,))


def test_planted_insertion_without_effect_in_a_mix(monkeypatch):
    monkeypatch.setattr("unipetl.attaching.heads.HeadProgram.append", lambda self, item: None)
    with pytest.raises(AssertionError, match=r"no gradient|zero for"):
        takes_them_in_one("opt", QUICK)


@pytest.mark.skipif(
    transformers.__version__ != COVERAGE["transformers"], reason="the page was written with another transformers"
)
@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("model_type", of_the_week(2))
def test_a_type_of_the_week(model_type, apart):
    if any(COVERAGE["types"][model_type]["methods"].get(name) == "ok" for name in QUICK) and not apart:
        takes_them_in_one(model_type, QUICK, seconds=300 if apart else 20)
    else:
        held_to_its_row(model_type, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model_type", of_the_week(12))
def test_every_method_on_a_type_of_the_week(model_type):
    held_to_its_row(model_type, tuple(METHODS))


def test_the_page_is_what_the_numbers_say():
    assert (ROOT / "docs/coverage.md").read_text(encoding="utf-8") == page(COVERAGE)


def test_the_page_says_nothing_of_a_machine():
    assert "/site-packages" not in (ROOT / "docs/coverage.json").read_text(encoding="utf-8").replace(
        "'site-packages", ""
    )


def test_nothing_fails_and_the_counts_are_as_announced():
    rows = COVERAGE["types"].values()
    checked = [row for row in rows if row["status"] == "checked"]
    assert not [row["model_type"] for row in checked if any(text[:3] == "bug" for text in row["methods"].values())]
    first, second = (sum(passes(row, names) for row in rows) for names in GROUPS.values())
    assert first >= 150
    assert second >= 120
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"Of its {len(rows)} model types, {len(checked)} could be built small and called" in said
    assert f"{first} of these pass every law with LoRA and the adapters, {second} with prefix tuning" in said
