from __future__ import annotations

import pytest

from unipetl.architectures.standard import STANDARD, find_standard
from unipetl.errors import DownloadError, PlanError
from unipetl.models import resolve_config, skeleton, standard_config, standard_names


def size(model):
    return sum({id(one): one.numel() for one in model.parameters()}.values())


@pytest.mark.parametrize("one", STANDARD, ids=standard_names())
def test_a_standard_model_has_its_published_size(one):
    model = skeleton(resolve_config(one.names[-1]))
    assert size(model) == one.parameters
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_planted_wrong_dimension_is_seen():
    config = standard_config("roberta-base")
    config.intermediate_size += 1
    assert size(skeleton(config)) != find_standard("roberta-base").parameters


def test_names_are_found_whatever_their_case():
    assert find_standard("FACEBOOK/bart-Large") is find_standard("bart-large")
    assert find_standard("bart") is None
    assert standard_config("bart") is None


def test_a_folder_goes_before_a_standard_name(tmp_path, monkeypatch):
    from transformers import GPT2Config

    GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50).save_pretrained(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    assert resolve_config("gpt2").n_embd == 16


def test_a_class_of_another_family_is_refused():
    with pytest.raises(PlanError, match="unknown Roberta model class 'BartModel'"):
        skeleton(standard_config("roberta-base"), "BartModel")


def test_an_unknown_name_says_what_would_work():
    with pytest.raises(DownloadError, match=r"Did you mean 'bart-large'\? What works without a network"):
        resolve_config("bart-larg")
