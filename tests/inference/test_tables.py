"""What is inferred from a model is what the hand-written table of its family says."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from unipetl.architectures import Site, architecture_for, find_sites
from unipetl.inference import infer
from unipetl.testing import FAMILIES, build

#: Tables that put a prompt where inference sees no place: the stack scales its tokens outside the embedding.
SCALED = {"marian"}
COMPARED = [one.name for one in fields(Site) if one.name not in ("stack", "query")]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_inference_finds_the_places_of_the_table(family, dtype):
    model = build(family, dtype=dtype)
    table = architecture_for(model.config.model_type, gated=bool(getattr(model.config, "is_gated_act", False)))
    found = infer(model)
    wanted = {site.name: site for site in find_sites(model, found.base, table)}
    sites = {site.name: site for site in find_sites(model, found.base, found.architecture)}
    assert set(wanted) - set(sites) == ({"encoder.input"} if family.name in SCALED else set())
    assert set(sites) <= set(wanted)
    for name, site in sites.items():
        for field in COMPARED:
            assert getattr(site, field) == getattr(wanted[name], field), (name, field)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_inference_tells_causal_stacks_and_rotary_ones(family):
    model = build(family)
    table = architecture_for(model.config.model_type, gated=bool(getattr(model.config, "is_gated_act", False)))
    found = {one.stack: one for one in infer(model).architecture.stacks}
    for one in table.stacks:
        assert (found[one.stack].rotary, found[one.stack].norm_first) == (one.rotary, one.norm_first)
        assert found[one.stack].causal == one.causal
