"""The random methods are sensible, reach the whole space, and survive notation."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unipetl
from unipetl.composition import COMPOSITIONS
from unipetl.forms import FORMS
from unipetl.insertion import INSERTIONS
from unipetl.representation import NAMES
from unipetl.sense import refuse_nonsense
from unipetl.testing import FAMILIES, build
from unipetl.testing.strategies import methods, modifications


@given(modifications())
def test_modifications_make_sense(one):
    refuse_nonsense(one)


@given(methods())
def test_methods_read_back_from_yaml(method):
    assert unipetl.Method.from_yaml(method.to_yaml()) == method
    assert unipetl.parse(method.to_yaml()) == method


def test_the_whole_space_is_reached():
    seen = set()

    @settings(max_examples=400, database=None)
    @given(modifications())
    def collect(one):
        seen.update({type(one.form), type(one.insertion), type(one.composition), one.representation.name})

    collect()
    assert {*FORMS, *INSERTIONS, *COMPOSITIONS, *NAMES} <= seen


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_methods_for_a_model_fit_it(family):
    model = build(family)

    @settings(max_examples=10, database=None, suppress_health_check=list(HealthCheck))
    @given(method=methods(model), data=st.data())
    def fits(method, data):
        made = unipetl.plan(method, model)
        assert made.placements

    fits()
