"""``unipetl params``: what methods cost on a model, without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Budget, Json, Model, Rule, examples, read_method
from unipetl.cli.plans import show_plan

if TYPE_CHECKING:
    from torch import nn

    from unipetl.planning import Plan

EXAMPLES = examples(
    ("one method, place by place", 'unipetl params -m roberta-base -x "mam(length=16, rank=16)"'),
    ("methods compared", 'unipetl params -m bart-large -x "prefix_tuning(length=200)" -x "adapter(rank=512)"'),
    ("the whole catalogue", "unipetl params -m t5-base"),
    ("what half a percent buys", 'unipetl params -m roberta-base -x lora -x "mam(mlp=none)" --budget 0.5%'),
    ("with a task head", "unipetl params -m roberta-base -x lora --class RobertaForSequenceClassification"),
)


def command(
    model: Model,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-x", metavar="METHOD", help="Notation or a YAML file; repeat it to compare."),
    ] = None,
    model_class: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help="Count on this model class, its head included.")
    ] = None,
    train_head: Annotated[
        bool, typer.Option("--train-head/--no-train-head", help="Count a task head as trained.")
    ] = True,
    budget: Budget = None,
    count: Rule = "true",
    as_json: Json = False,
) -> None:
    """Count what methods train on a model, truly and by the paper's rule.

    A masked language model such as roberta-base is counted as its encoder, without head and pooler. The paper's
    rule (appendix B) counts weight matrices alone: no biases, no layer norms, no reparametrising MLP, no task head.

    With a budget the sizes of the methods are solved for: those marked as in lora(rank=?), else all in proportion.
    """
    from unipetl import catalogue, models, planning
    from unipetl.errors import PlanError
    from unipetl.sizes import sizes

    skeleton = models.skeleton(models.resolve_config(model), model_class)
    plans: dict[str, Plan | str] = {}
    for text in method or [name for name in catalogue.names() if budget is None or sizes(name)]:
        try:
            fitted = text if budget is None else _within(text, skeleton, budget, count)
            plans[fitted] = planning.plan(read_method(fitted), skeleton, train_head=train_head)
        except PlanError as error:
            if method:
                raise
            plans[text] = str(error)
    if as_json:
        screen.show_json(_data(model, skeleton, plans))
        return
    only = next(iter(plans.values())) if len(plans) == 1 else None
    if only is not None and not isinstance(only, str):
        show_plan(only)
        return
    _show(model, skeleton, plans)


def _within(text: str, skeleton: nn.Module, budget: str, count: Literal["true", "paper"]) -> str:
    """Return a method's notation at the size that meets a budget."""
    from unipetl.budget import fit_budget

    if text.endswith((".yaml", ".yml", ".json")):
        return fit_budget(read_method(text), skeleton, budget, rule=count).method.canonical()
    found = fit_budget(text, skeleton, budget, rule=count)
    assert found.notation is not None
    return found.notation


def _show(model: str, skeleton: nn.Module, plans: dict[str, Plan | str]) -> None:
    rows: list[list[object]] = []
    for text, plan in plans.items():
        if isinstance(plan, str):
            rows.append([text, None, None, None, None])
        else:
            shares = screen.percent(plan.share), screen.percent(plan.paper_share)
            rows.append([text, plan.parameters, shares[0], plan.paper_parameters, shares[1]])
    numbers = ("trained", "share", "paper's count", "paper's share")
    screen.show(f"{model} as {type(skeleton).__name__}: {_size(skeleton):,} parameters\n")
    screen.show_table(("method", *numbers), rows, numbers=numbers)
    refused = {text: plan for text, plan in plans.items() if isinstance(plan, str)}
    for text, reason in refused.items():
        screen.show(f"\n- {text}: {reason}")


def _data(model: str, skeleton: nn.Module, plans: dict[str, Plan | str]) -> dict[str, Any]:
    rows = []
    for text, plan in plans.items():
        fields = {"refused": plan} if isinstance(plan, str) else plan.to_dict()
        rows.append({"notation": text, **fields})
    return {
        "model": model,
        "model_class": type(skeleton).__name__,
        "base_parameters": _size(skeleton),
        "methods": rows,
    }


def _size(model: nn.Module) -> int:
    return sum({id(one): one.numel() for one in model.parameters()}.values())
