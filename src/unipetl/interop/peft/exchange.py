"""Load a PEFT folder as an attachment, and export an attachment as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipetl.attaching import Attachment
from unipetl.attaching.state import own_parameters, state_of
from unipetl.errors import InteropError
from unipetl.forms import HeadAttention, Prompt, Rescale
from unipetl.interop.peft import files, ia3, lora, virtual
from unipetl.interop.peft.inplace import read_own, write_own
from unipetl.interop.peft.names import PREFIX, Places, name_of_base, task_of
from unipetl.interop.wanted import Wanted, attach_filled

_TYPES = ("LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING")


def load(model: nn.Module, path: str | Path, *, name: str = "default", shift_positions: bool = False) -> Attachment:
    """Attach what a PEFT folder holds: the same function of the model.

    Args:
        model: the base that the folder was trained on, of the same class.
        path: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        name: the attachment's name.
        shift_positions: accept a prefix of a model with absolute positions. PEFT moves every token by the prefix's
            length l, so the model must then be called with ``position_ids`` that begin at l.

    Raises:
        InteropError: the folder is damaged, does not fit the model, or means what unipetl does not have.
        AttachError: the name is taken.
    """
    folder = files.read(path)
    kind = str(folder.config.get("peft_type", "none"))
    if kind not in _TYPES:
        raise InteropError(f"peft_type {kind!r}: unipetl reads {', '.join(_TYPES)}.")
    places = Places(model)
    wanted = _wanted(kind, folder, places, shift_positions=shift_positions)
    prefix = PREFIX if kind in ("LORA", "IA3") else "base_model."
    own = read_own(places, wanted.rest, prefix)
    return attach_filled(model, wanted, own, name)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    base_model: str | None = None,
    shift_positions: bool = False,
    uniform: bool = False,
) -> Path:
    """Write an attachment as a folder that PEFT reads as the same function of the same base.

    Args:
        model: a model with attachments.
        path: the folder; made if absent.
        name: which attachment; None if there is only one. It must be active where it trains biases or a head.
        base_model: what the folder calls its base; None is where the model was loaded from.
        shift_positions: accept a prefix of a model with absolute positions, whose tokens PEFT moves by its length.
        uniform: write what engines that serve LoRA folders (vLLM and its like) read: one rank and one alpha for all
            modules, no biases and no head. The function is the same.

    Raises:
        InteropError: the format cannot say this method; the message says what, and why.
        AttachError: there is no such attachment.
    """
    record = state_of(model).find(name)
    if record.parked and not record.active:
        raise InteropError(f"attachment {record.name!r} trains the model's own parameters; activate it first.")
    places = Places(model)
    forms = {type(one.modification.form) for one in record.plan.placements}
    wrapped: set[str] = set()
    if not forms:
        raise InteropError("PEFT has no format for a method that only trains the model's own parameters.")
    if forms == {Rescale}:
        config, tensors, wrapped = ia3.write(record, places)
    elif forms == {HeadAttention}:
        config, tensors = virtual.write_prefix(record, places, shift_positions=shift_positions)
    elif forms == {Prompt}:
        config, tensors = virtual.write_prompt(record, places)
    elif forms & {HeadAttention, Prompt, Rescale}:
        names = ", ".join(sorted(form.tag for form in forms))
        raise InteropError(f"PEFT saves one kind of method in a folder; here are several ({names}).")
    else:
        config, tensors, wrapped = lora.write(record, places, uniform=uniform)
    task = task_of(model)
    current: dict[str, Tensor] = {key: value.detach() for key, value in own_parameters(model).items()}
    for other in state_of(model).records.values():
        if other.active and other is not record:
            current |= other.parked  # the values that are the base's
    own, modules, biases = write_own(model, [one for one, _ in record.plan.trained], current, wrapped, task)
    if wrapped:
        tensors |= own
    elif biases:
        raise InteropError("PEFT's prefix and prompt tuning train no biases of the model.")
    else:
        tensors |= {f"base_model.{key.removeprefix(PREFIX)}": value for key, value in own.items()}
    if uniform:
        _refuse_unserved(config, modules, biases=biases)
    settings: dict[str, Any] = {
        "auto_mapping": None if task else _auto_mapping(model),
        "base_model_name_or_path": name_of_base(model) if base_model is None else base_model,
        "revision": None, "task_type": task, "inference_mode": True, "modules_to_save": modules or None,
    }  # fmt: skip
    if config["peft_type"] == "LORA":
        settings["bias"] = "all" if biases else "none"
    elif biases:
        raise InteropError("PEFT's (IA)^3 trains no biases of the model.")
    return files.write(path, {**settings, **config}, tensors)


def _refuse_unserved(config: dict[str, Any], modules: list[str], *, biases: bool) -> None:
    """Refuse what engines that serve LoRA folders do not read.

    Raises:
        InteropError: it is no LoRA, or has biases or whole modules beside it.
    """
    extra = "biases" if biases or config.get("lora_bias") else f"the whole of {modules[0]!r}" if modules else None
    if config["peft_type"] != "LORA" or extra:
        what = f"trains {extra} as well" if extra else f"is {config['peft_type']}"
        raise InteropError(f"engines that serve such folders read LoRA alone; this attachment {what}.")


def _wanted(kind: str, folder: files.Folder, places: Places, *, shift_positions: bool) -> Wanted:
    if kind == "LORA":
        return lora.read(folder, places)
    if kind == "IA3":
        return ia3.read(folder, places)
    if kind == "PREFIX_TUNING":
        return virtual.read_prefix(folder, places, shift_positions=shift_positions)
    return virtual.read_prompt(folder, places)


def _auto_mapping(model: nn.Module) -> dict[str, str]:
    return {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
