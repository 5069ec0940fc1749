"""Which points of the design space make sense: the refusals of ``plan``.

Each refusal names the axis, the value, and what would work.
"""

from __future__ import annotations

from unipetl.composition import Gate, Multiply
from unipetl.errors import PlanError
from unipetl.forms import Experts, Features, HeadAttention, Heads, Prompt, Rescale, Shape, Tokens
from unipetl.insertion import Parallel, Sequential
from unipetl.method import Modification

#: The representations that every expert of a mixture has of its own.
EXPERT_PLACES = ("ffn.up", "ffn.gate", "ffn.hidden", "ffn.down")


def refuse_nonsense(one: Modification) -> None:
    """Raise if the four values of ``one`` contradict each other, whatever the model.

    Raises:
        PlanError: with the axis, the value and what would work.
    """
    where = one.representation.name
    form, insertion, composition = one.form, one.insertion, one.composition
    tag = type(form).tag
    if isinstance(form, HeadAttention) or form.needs is Heads:
        if where != "attention.heads":
            raise PlanError(
                f"modified representation {where!r}: the functional form {tag!r} attends with the model's queries, "
                "so it needs representation 'attention.heads'. At other places use 'bottleneck' or 'low_rank'."
            )
    elif form.needs is Tokens:
        if where != "input":
            raise PlanError(
                f"modified representation {where!r}: the functional form {tag!r} adds vectors to a sequence, so it "
                "needs representation 'input'. For learned keys and values in every layer use 'head_attention' at "
                "'attention.heads'."
            )
    elif where == "input":
        raise PlanError(
            f"modified representation 'input': the functional form {tag!r} does not lengthen a sequence; only "
            "'prompt' does. To change the first layer use representation 'block' with layers: [0]."
        )
    if isinstance(form, (HeadAttention, Prompt)) and insertion != Parallel():
        raise PlanError(
            f"insertion {insertion.plain()!r}: the functional form {tag!r} reads the sub-layer's own input; "
            "use insertion 'parallel'."
        )
    if isinstance(composition, Gate):
        softmax = isinstance(form, HeadAttention) and form.activation == "softmax"
        if not softmax and not isinstance(form, Prompt):
            raise PlanError(
                f"composition 'gate': the gate is the attention mass on learned positions, and the functional form "
                f"{tag!r} has no such scores. Use 'add', or 'head_attention' with activation 'softmax'."
            )
    elif isinstance(form, Prompt):
        raise PlanError(
            f"composition {composition.plain()!r}: prompt vectors join through the attention's own softmax; use 'gate'."
        )
    if isinstance(composition, Multiply) != isinstance(form, Rescale):
        raise PlanError(
            f"composition {composition.plain()!r}: 'multiply' goes with the functional form 'rescale', which goes "
            f"with nothing else; the form here is {tag!r}."
        )
    if isinstance(form, Rescale) and not isinstance(insertion, Sequential):
        raise PlanError("insertion 'parallel': the functional form 'rescale' multiplies h itself; use 'sequential'.")
    if isinstance(insertion, Sequential) and insertion.reads == "normed" and where != "ffn.residual":
        raise PlanError(
            f"insertion 'sequential' with reads='normed': no norm follows {where!r} directly; it is for "
            "representation 'ffn.residual' in post-norm models."
        )
    if where == "embedding" and one.representation.layers is not None:
        raise PlanError("layers: 'embedding' comes before the layers of a stack; narrow it with stack alone.")
    if isinstance(insertion, Parallel) and where == "ffn.residual":
        raise PlanError(
            "insertion 'parallel' at 'ffn.residual': adding to the residual stream is adding to the FFN's result; "
            "use representation 'ffn', the same function."
        )
    if one.representation.experts is not None and where not in EXPERT_PLACES:
        raise PlanError(
            f"experts {one.representation.experts!r}: only {', '.join(EXPERT_PLACES)} are places that experts have; "
            f"{where!r} is none, and is shared by all experts of a layer."
        )
    if one.representation.kind is not None and not where.startswith("attention"):
        raise PlanError(
            f"kind {one.representation.kind!r}: only attention representations have a kind, and {where!r} is none."
        )


def shape_at(one: Modification, shape: Shape) -> Shape:
    """Return the shape that the form of ``one`` sees at a place of shape ``shape``."""
    if one.form.needs is not Features:
        return shape
    if isinstance(shape, Experts):
        each, chosen = shape_at(one, shape.each), one.representation.experts
        assert isinstance(each, Features)
        return Experts(each, shape.total, chosen if isinstance(chosen, tuple) else shape.chosen)
    if isinstance(shape, Heads):
        joined = shape.query_heads * shape.value_dim
        shape = Features(shape.width, joined)
    assert isinstance(shape, Features)
    if isinstance(one.insertion, Sequential):
        return Features(shape.out_features, shape.out_features)
    return shape
