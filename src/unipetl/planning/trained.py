"""Which parameters of the model itself a method trains: biases, norms, embeddings, the task head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from unipetl.architectures import Site
from unipetl.architectures.embeddings import output_embedding, token_embedding
from unipetl.errors import PlanError
from unipetl.method import Method
from unipetl.planning.own import own_modules, own_parameters

#: Attribute of a model with attachments that holds their state, its own flags among it.
STATE = "_unipetl_state"
#: Biases that choose experts: they are counted up in training, and no gradient reaches them.
ROUTING = ("expert_bias", "e_score_correction_bias", "expert_biases", "score_correction_bias")
#: Model classes whose head is made for one task and starts untrained.
TASK_HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForAudioClassification",
    "ForNextSentencePrediction",
    "DoubleHeadsModel",
)


def head_parameters(model: nn.Module, base: str, sites: Sequence[Site]) -> tuple[str, ...]:
    """Return the names of the parameters of the task head, or of a language model's output projection.

    An output projection that is tied to the embeddings goes by its own name, and is untied while it is trained.
    """
    if not is_task_head(model):
        output = output_embedding(model)
        tokens = token_embedding(model)
        tied = {id(parameter) for parameter in tokens.parameters()} if isinstance(tokens, nn.Module) else set()
        names = {id(parameter): name for name, parameter in own_parameters(model).items()}
        return tuple(
            f"{path}.{name}" if id(parameter) in tied else names[id(parameter)]
            for path, module in own_modules(model)
            if output is not None and module is output
            for name, parameter in module.named_parameters()
        )
    inside = {base} if base else {site.stack_root for site in sites}
    tokens = token_embedding(model)
    shared = {id(parameter) for parameter in tokens.parameters()} if isinstance(tokens, nn.Module) else set()
    return tuple(
        name
        for name, parameter in own_parameters(model).items()
        if not any(name.startswith(f"{root}.") for root in inside if root) and id(parameter) not in shared
    )


def is_task_head(model: nn.Module) -> bool:
    """Return whether the model's class has a head made for one task."""
    return any(cls.__name__.endswith(TASK_HEADS) for cls in type(model).__mro__)


def trained_parameters(
    method: Method, model: nn.Module, head: Sequence[str], *, train_head: bool
) -> tuple[tuple[str, int], ...]:
    """Return name and size of every parameter of ``model`` that ``method`` trains.

    Raises:
        PlanError: a group the method names is empty in this model.
    """
    tokens = token_embedding(model)
    embeddings = {id(p) for p in tokens.parameters()} if isinstance(tokens, nn.Module) else set()
    flags, own = own_flags(model), own_parameters(model)
    fixed = {name for name, trainable in flags.items() if not trainable and "embed_positions" in name}  # sinusoids
    wanted = set(head) if "head" in method.train or (train_head and is_task_head(model)) else set()
    for group in method.train:
        before = len(wanted)
        for name, parameter in own.items():
            owner, _, last = name.rpartition(".")
            norm = "norm" in owner.rpartition(".")[2].lower() or owner.rpartition(".")[2].startswith("ln_")
            if name in fixed:
                continue
            if (
                group == "all"
                or (group == "bias" and "bias" in name and last not in ROUTING)
                or (group == "norm" and norm and last in ("weight", "bias"))
            ) or (group == "embeddings" and id(parameter) in embeddings):
                wanted.add(name)
        if len(wanted) == before and not (group == "head" and head) and "all" not in method.train:
            raise PlanError(f"train {group!r}: {type(model).__name__} has no such parameters.")
    if "all" in method.train:  # a tied output projection is trained as what it is tied to
        wanted &= set(flags)
    everything = own_parameters(model, remove_duplicate=False)
    return tuple((name, p.numel()) for name, p in everything.items() if name in wanted)


def own_flags(model: nn.Module) -> dict[str, bool]:
    """Return ``requires_grad`` of the model's own parameters, as it was before anything was attached."""
    before: dict[str, bool] = getattr(model.__dict__.get(STATE), "flags", {})
    return {name: before.get(name, parameter.requires_grad) for name, parameter in own_parameters(model).items()}
