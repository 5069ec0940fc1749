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

COVERAGE = json.loads((Path(__file__).parents[2] / "docs/coverage.json").read_text(encoding="utf-8"))
#: One of every way to insert and every kind of place.
QUICK = ("lora", "parallel_adapter", "prefix_tuning")
#: Beside the families with tables, which are tested in test_architectures.py.
NAMED = (
    "vit", "clip", "dinov2", "swin", "wav2vec2", "hubert", "llava", "gemma2", "phi", "phi3", "olmo", "gpt_neox", "opt",
    "falcon", "gptj", "bloom", "mixtral", "deepseek_v3", "mt5", "pegasus", "led", "m2m_100", "deberta-v2", "mpnet",
)  # fmt: skip


#: Named families whose small models take their time: windows, and convolutions over sound.
LARGE = {"swin", "wav2vec2", "hubert"}
#: Types with a fault that the page tells of.
KNOWN = {"mobilevit"}


def of_the_week(number):
    """Some of the types that were checked, others every week."""
    year, week, _ = datetime.datetime.now(datetime.UTC).isocalendar()
    types = [name for name, row in COVERAGE["types"].items() if row["status"] == "checked" and name not in KNOWN]
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


@pytest.mark.parametrize("model_type", NAMED)
def test_a_named_family(model_type):
    assert model_type in COVERAGE["types"]
    held_to_its_row(model_type, QUICK[:1] if model_type in LARGE else QUICK)


@pytest.mark.skipif(
    transformers.__version__ != COVERAGE["transformers"], reason="the page was written with another transformers"
)
@pytest.mark.parametrize("model_type", of_the_week(2))
def test_a_type_of_the_week(model_type):
    held_to_its_row(model_type, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model_type", of_the_week(12))
def test_every_method_on_a_type_of_the_week(model_type):
    held_to_its_row(model_type, tuple(METHODS))


def test_the_page_is_what_the_numbers_say():
    assert (Path(__file__).parents[2] / "docs/coverage.md").read_text(encoding="utf-8") == page(COVERAGE)


def test_no_fault_is_new_and_the_counts_are_as_announced():
    rows = COVERAGE["types"].values()
    checked = [row for row in rows if row["status"] == "checked"]
    assert {row["model_type"] for row in checked if any(text[:3] == "bug" for text in row["methods"].values())} <= KNOWN
    first, second = (sum(passes(row, names) for row in rows) for names in GROUPS.values())
    assert first >= 150
    assert second >= 120
