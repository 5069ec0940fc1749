"""Random points of the design space, for property tests with hypothesis (which this module needs).

Every value drawn is one that ``plan`` accepts: on any model for [modifications][] without a model, on that model
otherwise.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import assume
from hypothesis import strategies as st
from torch import nn

from unipetl.architectures import Site, architecture_for, find_sites
from unipetl.composition import Add, Composition, Gate, Multiply
from unipetl.errors import PlanError
from unipetl.forms import Bottleneck, Form, HeadAttention, LowRank, Mlp, Prompt, Rescale
from unipetl.forms.bottleneck import Activation
from unipetl.forms.form import Init, LayerNormAt
from unipetl.insertion import Insertion, Parallel, Sequential
from unipetl.method import Method, Modification
from unipetl.planning import plan
from unipetl.representation import NAMES, Representation

_RANKS = st.integers(1, 3)
_LENGTHS = st.integers(2, 4)  # a softmax over one position is constant, so its key would have nothing to learn
_DROPOUTS = st.sampled_from([0.0, 0.0, 0.1])
_INITS: st.SearchStrategy[Init] = st.sampled_from(["bert", "lora"])
_NORMS: st.SearchStrategy[LayerNormAt] = st.sampled_from(["none", "in", "out"])
_ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(["relu", "gelu", "gelu_tanh", "silu", "tanh", "identity"])
_SCORES: st.SearchStrategy[Literal["softmax", "relu"]] = st.sampled_from(["softmax", "softmax", "relu"])
_QUERY_NORMS: st.SearchStrategy[Literal["none", "in"]] = st.sampled_from(["none", "in"])


@st.composite
def bottlenecks(draw: st.DrawFn) -> Bottleneck:
    """Draw a bottleneck of rank 1 to 3."""
    norm = draw(_NORMS)
    return Bottleneck(
        rank=draw(_RANKS),
        activation=draw(_ACTIVATIONS),
        gated=draw(st.sampled_from([False, False, True])),
        bias=draw(st.booleans()),
        layer_norm=norm,
        dropout=draw(_DROPOUTS),
        init=draw(_INITS),
        inner_scale=draw(st.sampled_from([1.0, 0.5, "learned"])) if norm == "out" else 1.0,
    )


@st.composite
def head_attentions(draw: st.DrawFn) -> HeadAttention:
    """Draw learned keys and values, two to four of them."""
    activation = draw(_SCORES)
    return HeadAttention(
        length=draw(_LENGTHS),
        activation=activation,
        reparametrization=draw(st.one_of(st.none(), st.integers(2, 5).map(lambda width: Mlp(width=width)))),
        layer_norm=draw(_QUERY_NORMS),
        scale_query=activation == "softmax" or draw(st.booleans()),
        dropout=draw(_DROPOUTS),
        init=draw(_INITS),
    )


def forms() -> st.SearchStrategy[Form]:
    """Draw any functional form."""
    low_rank = st.builds(LowRank, rank=_RANKS, dropout=_DROPOUTS, init=_INITS)
    prompts = st.builds(Prompt, length=_LENGTHS)
    return st.one_of(bottlenecks(), low_rank, head_attentions(), prompts, st.just(Rescale()))


def insertions(form: Form, name: str) -> st.SearchStrategy[Insertion]:
    """Draw an insertion that makes sense for ``form`` at the representation ``name``."""
    if isinstance(form, (HeadAttention, Prompt)):
        return st.just(Parallel())
    sequential: list[Insertion] = [Sequential()]
    if name == "ffn.residual":
        return st.sampled_from([*sequential, Sequential(reads="normed")])
    if isinstance(form, Rescale):
        return st.sampled_from(sequential)
    return st.sampled_from([*sequential, Parallel(), Parallel(reads="residual")])


def compositions(form: Form) -> st.SearchStrategy[Composition]:
    """Draw a composition that makes sense for ``form``."""
    if isinstance(form, Rescale):
        return st.just(Multiply())
    if isinstance(form, Prompt):
        return st.just(Gate())
    added: st.SearchStrategy[Composition] = st.builds(Add, scale=st.sampled_from([1.0, 4.0, 0.5, -1.5, "learned"]))
    if isinstance(form, HeadAttention) and form.activation == "softmax":
        return st.one_of(st.just(Gate()), added)
    return added


def names_for(form: Form) -> tuple[str, ...]:
    """Return the representations that ``form`` can change."""
    if isinstance(form, Prompt):
        return ("input",)
    if isinstance(form, HeadAttention):
        return ("attention.heads",)
    return tuple(name for name in NAMES if name != "input")


@st.composite
def modifications(draw: st.DrawFn, sites: tuple[Site, ...] | None = None) -> Modification:
    """Draw one point of the design space.

    Args:
        draw: given by hypothesis.
        sites: the places of a model, so that the point exists there; None is any model.
    """
    form = draw(forms())
    names = names_for(form)
    if sites is None:
        representation = Representation(name=draw(st.sampled_from(names)))
    else:
        present = [site for site in sites if site.representation in names]
        assume(present)
        name = draw(st.sampled_from(sorted({site.representation for site in present})))
        representation = draw(_narrowed(name, [site for site in present if site.representation == name]))
    return Modification(
        representation=representation,
        form=form,
        insertion=draw(insertions(form, representation.name)),
        composition=draw(compositions(form)),
    )


@st.composite
def _narrowed(draw: st.DrawFn, name: str, sites: list[Site]) -> Representation:
    one = draw(st.sampled_from(sites))
    kinds = [None] if one.kind is None else [None, one.kind]
    depths = [None] if name == "input" else [None, None, (one.layer,), (-1,)]
    return Representation(
        name=name,
        stack=draw(st.sampled_from([None, one.stack.stack])),
        kind=draw(st.sampled_from(kinds)),
        layers=draw(st.sampled_from(depths)),
    )


@st.composite
def methods(draw: st.DrawFn, model: nn.Module | None = None, *, most: int = 3, trains: bool = True) -> Method:
    """Draw a method of one to ``most`` modifications.

    Args:
        draw: given by hypothesis.
        model: a model that takes it; None draws methods that make sense by themselves.
        most: the largest number of modifications.
        trains: whether it may also train pretrained parameters.
    """
    sites = None if model is None else sites_of(model)
    drawn = draw(st.lists(modifications(sites), min_size=1, max_size=most, unique_by=_identity))
    groups = st.sampled_from([(), (), (), ("norm",), ("head",)]) if trains else st.just(())
    method = Method(modifications=tuple(drawn), train=draw(groups))
    if model is not None:
        try:
            plan(method, model)
        except PlanError:
            assume(False)
    return method


def _identity(one: Modification) -> str:
    return str(one.plain())


def sites_of(model: nn.Module) -> tuple[Site, ...]:
    """Return every place of a model of a known family."""
    config = getattr(model, "config", None)
    gated = bool(getattr(config, "is_gated_act", False))
    table = architecture_for(getattr(config, "model_type", ""), gated=gated)
    return find_sites(model, plan(Method(), model).base, table)
