"""Which model types of the installed transformers unipetl can change, and how: the contract, run on all of them.

Every type is built small and random from its own default config, and every named method goes through the laws of
[check_architecture][unipetl.testing.check_architecture] on it. ``python -m unipetl.testing.coverage --help`` writes the
result as JSON and as a table.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Architecture, find_blocks
from unipetl.errors import ArchitectureError, CheckError, PetlError, PlanError
from unipetl.inference import base_path
from unipetl.inference.inputs import example_inputs
from unipetl.inference.small import small_config
from unipetl.inference.tracing import trace
from unipetl.method import Method
from unipetl.planning import plan
from unipetl.testing import laws
from unipetl.testing.compare import loss_of, outputs
from unipetl.testing.laws.generation import generate
from unipetl.testing.models import randomize

#: The methods of the coverage table.
METHODS: Mapping[str, str] = {
    "lora": "lora(rank=2)",
    "lora everywhere": "lora(rank=2, at=all)",
    "adapter": "adapter(rank=3)",
    "houlsby": "houlsby(rank=3)",
    "pfeiffer": "pfeiffer(rank=3)",
    "parallel_adapter": "parallel_adapter(rank=3, at=both)",
    "scaled_parallel_adapter": "scaled_parallel_adapter(rank=3)",
    "bitfit": "bitfit",
    "ia3": "ia3",
    "prefix_tuning": "prefix_tuning(length=3, mlp=4)",
    "multi_head_parallel_adapter": "multi_head_parallel_adapter(rank=4)",
    "mam": "mam(length=2, rank=3, mlp=4)",
    "prompt_tuning": "prompt_tuning(length=3)",
}
#: Models larger than this many parameters are left out: their defaults do not shrink.
LARGEST = 60_000_000


@dataclass
class Row:
    """What is known of one model type.

    Attributes:
        model_type: ``config.model_type``.
        model_class: the class that was built; "" if none could be.
        stacks: the stacks that were found; ``checked`` those that the call reaches.
        status: ``checked``, or why not.
        methods: method -> ``ok``, ``refused: ...`` or ``bug: ...``.
        skipped: laws that the bare model itself does not satisfy.
    """

    model_type: str
    model_class: str = ""
    status: str = ""
    stacks: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    methods: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def model_types() -> list[str]:
    """Return every model type that transformers' AutoModel knows."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def build_type(model_type: str) -> nn.Module:
    """Return a small random model of a type, with a language-model head where it has one.

    Raises:
        ArchitectureError: transformers builds none from the type's default config; the message has its reason.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        small = small_config(CONFIG_MAPPING[model_type](), heads=True)
        build = next((auto for auto, names in _heads() if model_type in names), "AutoModel")
        make = getattr(transformers, build).from_config
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in make(copy.deepcopy(small)).parameters())
        if size > LARGEST:
            raise ArchitectureError(f"its small form still has {size / 1e6:.0f} million parameters")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = make(small)
    except ArchitectureError:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, TimeoutError)):
            raise
        raise ArchitectureError(f"{type(error).__name__}: {_first_line(error)}") from error
    with contextlib.suppress(ValueError, AttributeError, NotImplementedError):
        model.set_experts_implementation("eager")  # type: ignore[operator]  # the fused one has no float64
    randomize(model)
    return model.double().eval()


def _heads() -> list[tuple[str, Mapping[str, Any]]]:
    from transformers.models.auto import modeling_auto as auto

    return [
        ("AutoModelForSeq2SeqLM", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForCausalLM", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForSequenceClassification", auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    ]


def check_type(model_type: str, *, methods: Mapping[str, str] = METHODS, seconds: int = 300) -> Row:
    """Build a model type and run the contract on it; nothing is raised.

    Args:
        model_type: one of [model_types][unipetl.testing.coverage.model_types].
        methods: name -> text of the methods to check.
        seconds: after which it is given up.
    """
    row = Row(model_type)
    try:
        with _at_most(seconds):
            model = build_type(model_type)
            row.model_class = type(model).__name__
            _check(model, row, methods)
    except TimeoutError:
        row.status = f"given up after {seconds} s"
    except PetlError as error:
        row.status = ("not built: " if not row.model_class else "not understood: ") + _first_line(error)
    except Exception as error:  # noqa: BLE001 - whatever planning raises that is no message of ours is a finding
        row.status = f"bug: {type(error).__name__}: {_first_line(error)}"
    return row


def _check(model: nn.Module, row: Row, methods: Mapping[str, str]) -> None:
    architecture = plan(Method(), model).architecture
    row.stacks = [table.stack for table in architecture.stacks]
    call, reached = _call(model, architecture)
    row.checked = [table.stack for table in reached.stacks]
    if not reached.stacks:
        raise ArchitectureError("no stack of layers is reached by a call")
    calls = _Calls(call, _padded(model, call, row), _start(model, call, row), _unused(model, call))
    for name, text in methods.items():
        row.methods[name] = _method(model, text, calls, reached)
    row.status = "checked"


def _call(model: nn.Module, architecture: Architecture) -> tuple[dict[str, Any], Architecture]:
    """Return the arguments of a call that reaches the most stacks, and the table of those."""
    best: tuple[dict[str, Any], tuple[Any, ...]] | None = None
    for inputs in example_inputs(model, rows=2):
        try:
            seen = trace(model, inputs)
        except Exception:  # noqa: BLE001 - guessed inputs may fail in any way
            continue
        base = base_path(model)
        stacks = tuple(
            table
            for table in architecture.stacks
            if all(seen.first(block) is not None for block in find_blocks(model, base, table) or [])
        )
        if best is None or len(stacks) > len(best[1]):
            best = inputs, stacks
    if best is None:
        raise ArchitectureError("no call with two rows succeeds")
    tensors = {name: value for name, value in best[0].items() if isinstance(value, Tensor)}
    return tensors, Architecture(architecture.model_types, best[1])


def _padded(model: nn.Module, call: Mapping[str, Any], row: Row) -> dict[str, Any] | None:
    ids = call.get("input_ids")
    if not isinstance(ids, Tensor) or ids.shape[0] != 2:
        return None
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    made = {**call, "attention_mask": mask}
    try:
        together = outputs(model, made)
        alone = outputs(model, {name: _row(value, mask, name) for name, value in made.items()})
        seen = (
            together[1:, : alone.shape[1]] if together.dim() > 2 and "decoder_input_ids" not in call else together[1:]
        )
        if torch.allclose(seen, alone, rtol=1e-6, atol=1e-6):
            return made
    except Exception:  # noqa: BLE001 - a model that takes no mask has no padding to check
        pass
    row.skipped.append("padding")
    return None


def _row(value: Any, mask: Tensor, name: str) -> Any:
    if not isinstance(value, Tensor) or value.shape[0] != 2:
        return value
    along = value.dim() >= 2 and value.shape[1] == mask.shape[1] and not name.startswith("decoder")
    return value[1:, :-2] if along else value[1:]


def _start(model: nn.Module, call: Mapping[str, Any], row: Row) -> dict[str, Any] | None:
    able = getattr(model, "can_generate", None)
    if not callable(able) or not able():
        return None
    start = {name: value for name, value in call.items() if name not in ("use_cache", "decoder_input_ids")}
    try:
        plain = generate(model, start, use_cache=False)[1]
        cached = generate(model, start, use_cache=True)[1]
        if torch.allclose(plain, cached, rtol=1e-5, atol=1e-5):
            return start
    except Exception:  # noqa: BLE001 - models generate under conditions of their own
        pass
    row.skipped.append("generation")
    return None


@dataclass(frozen=True)
class _Calls:
    """Arguments of calls: a plain one, one with padding, the start of a text; and what the plain one leaves unused."""

    plain: dict[str, Any]
    padded: dict[str, Any] | None
    start: dict[str, Any] | None
    unused: frozenset[str]


def _unused(model: nn.Module, call: dict[str, Any]) -> frozenset[str]:
    """Return the parameters that no gradient reaches when all are trained."""
    whole = copy.deepcopy(model).requires_grad_(True)
    torch.autograd.backward(loss_of(whole, call))
    return frozenset(name for name, parameter in whole.named_parameters() if parameter.grad is None)


def _method(model: nn.Module, text: str, calls: _Calls, architecture: Architecture) -> str:
    call, padded, start = calls.plain, calls.padded, calls.start
    try:
        plan(text, model, architecture=architecture)
    except PlanError as refusal:
        return f"refused: {_first_line(refusal)}"
    options: dict[str, Any] = {"architecture": architecture}

    def fresh() -> nn.Module:
        return copy.deepcopy(model)

    checks: dict[str, Callable[[], None]] = {
        "starts as the bare model": lambda: laws.starts_as_the_bare_model(fresh(), text, call, **options),
        "trains its own and nothing else": lambda: laws.trains_its_own_and_nothing_else(
            fresh(), text, call, unused=calls.unused, **options
        ),
        "leaves the base alone": lambda: laws.leaves_the_base_alone(fresh(), text, call, **options),
        "detaches exactly": lambda: laws.detaches_exactly(fresh(), text, call, **options),
        "survives saving": lambda: _save(model, text, call, options),
    }
    if padded is not None:
        checks["ignores padding"] = lambda: laws.ignores_padding(fresh(), text, padded, atol=1e-5, **options)
    if start is not None:
        checks["generates the same without a cache"] = lambda: laws.generates_the_same_without_cache(
            fresh(), text, start, atol=1e-4, **options
        )
    for law, check in checks.items():
        try:
            check()
        except TimeoutError:
            raise
        except CheckError as fault:
            return f"bug: {law}: {_first_line(fault)}"
        except Exception as fault:  # noqa: BLE001 - whatever a wrong place makes a model raise is a finding
            return f"bug: {law}: {type(fault).__name__}: {_first_line(fault)}"
    return "ok"


def _save(model: nn.Module, text: str, call: dict[str, Any], options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        laws.survives_saving(copy.deepcopy(model), copy.deepcopy(model), text, call, Path(folder), **options)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
