"""Which model types of the installed transformers unipetl can change, and how: the contract, run on all of them.

Every type is built small and random from its own default config, and every named method goes through the laws of
[check_architecture][unipetl.testing.check_architecture] on it. ``python -m unipetl.testing.coverage_report`` writes
the result as JSON and as a table.
"""

from __future__ import annotations

import contextlib
import copy
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unipetl.errors import ArchitectureError, PetlError, PlanError, first_line
from unipetl.inference.small import small_config
from unipetl.method import Method
from unipetl.planning import plan
from unipetl.testing.apart import is_no_room
from unipetl.testing.calls import call_reaching, calls_of
from unipetl.testing.completions import complete
from unipetl.testing.contract import broken_law
from unipetl.testing.models import randomize

#: The methods of the coverage table.
METHODS: Mapping[str, str] = {
    "lora": "lora(rank=2)",
    "lora everywhere": "lora(rank=2, at=all)",
    "lora of embeddings": "lora(rank=2, at=embedding)",
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
        small = small_config(complete(CONFIG_MAPPING[model_type]()), heads=True)
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
        if isinstance(error, (KeyboardInterrupt, TimeoutError)) or is_no_room(error):
            raise
        raise ArchitectureError(f"{type(error).__name__}: {_short_line(error)}") from error
    with contextlib.suppress(ValueError, AttributeError, NotImplementedError):
        model.set_experts_implementation("eager")  # type: ignore[operator]  # the fused one has no float64
    randomize(model)
    return model.double().eval()


def _heads() -> list[tuple[str, Mapping[str, Any]]]:
    from transformers.models.auto import modeling_auto as auto

    return [
        ("AutoModelForSeq2SeqLM", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForSpeechSeq2Seq", auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
        ("AutoModelForCausalLM", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForSequenceClassification", auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    ]


def check_type(model_type: str, *, methods: Mapping[str, str] = METHODS, seconds: int = 300) -> Row:
    """Build a model type and run the contract on it; nothing is raised.

    Args:
        model_type: one of [model_types][unipetl.testing.coverage.model_types].
        methods: name -> text of the methods to check.
        seconds: of computing, after which it is given up.
    """
    row = Row(model_type)
    try:
        with _at_most(seconds):
            model = build_type(model_type)
            row.model_class = type(model).__name__
            try:
                _check(model, row, methods)
            except ArchitectureError:
                if row.methods:
                    raise
                with _float64_by_default():
                    _check(model, row, methods)
    except TimeoutError:
        row.status = f"given up after {seconds} s of computing"
    except PetlError as error:
        row.status = ("not built: " if not row.model_class else "not understood: ") + _short_line(error)
    except Exception as error:  # noqa: BLE001 - whatever planning raises that is no message of ours is a finding
        fault = f"bug: {type(error).__name__}: {_short_line(error)}"
        row.status = "given up: it needs more memory than it may take" if is_no_room(error) else fault
    return row


def _check(model: nn.Module, row: Row, methods: Mapping[str, str]) -> None:
    architecture = plan(Method(), model).architecture
    row.stacks = [table.stack for table in architecture.stacks]
    call, reached = call_reaching(model, architecture)
    row.checked = [table.stack for table in reached.stacks]
    if not reached.stacks:
        raise ArchitectureError("no stack of layers is reached by a call")
    calls = calls_of(model, call)
    row.skipped = list(calls.skipped)
    for name, text in methods.items():
        try:
            plan(text, model, architecture=reached)
        except PlanError as refusal:
            row.methods[name] = f"refused: {_short_line(refusal)}"
            continue
        broken = broken_law(model, text, calls, {"architecture": reached})
        row.methods[name] = "ok" if broken is None else f"bug: {broken}"
    row.status = "checked"


@contextlib.contextmanager
def _float64_by_default() -> Iterator[None]:
    """For models that make numbers of torch's default dtype as they go, which float64 ones do not mix with."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _short_line(error: BaseException) -> str:
    return re.sub(r"/\S*/(?=site-packages/)", "", first_line(error))[:300]  # nothing of the machine


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so much computing, and again every second, as much of what is raised is passed over."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
