"""Load a folder of AdapterHub's `adapters` as an attachment, and export an attachment as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipetl.attaching import Attachment
from unipetl.attaching.state import Record, own_parameters, state_of
from unipetl.errors import InteropError
from unipetl.interop.adapterhub import files
from unipetl.interop.adapterhub.bottleneck import Spec as BottleneckSpec
from unipetl.interop.adapterhub.bottleneck import read_bottleneck
from unipetl.interop.adapterhub.export import KEPT, Config, members
from unipetl.interop.adapterhub.heads import head_tensors
from unipetl.interop.adapterhub.layout import Layout
from unipetl.interop.adapterhub.lora import Spec as LoraSpec
from unipetl.interop.adapterhub.lora import read_lora
from unipetl.interop.adapterhub.pool import Pool
from unipetl.interop.adapterhub.prefix import Spec as PrefixSpec
from unipetl.interop.adapterhub.prefix import read_prefix
from unipetl.interop.adapterhub.settings import read_settings
from unipetl.interop.peft.inplace import read_own
from unipetl.interop.peft.names import name_of_base
from unipetl.interop.wanted import Own, Wanted, attach_filled, modifications_of


def load(
    model: nn.Module,
    path: str | Path,
    *,
    name: str = "default",
    head: bool = True,
    ignore_dropout: bool = False,
) -> Attachment:
    """Attach what an AdapterHub folder holds: the same function of the model.

    Args:
        model: the base that the folder was trained on.
        path: a folder with ``adapter_config.json`` and ``adapter.safetensors``.
        name: the attachment's name.
        head: whether to load the head that was saved beside the adapter, if there is one.
        ignore_dropout: accept a bottleneck with dropout, which the library puts where unipetl has none; it acts in
            training alone.

    Raises:
        InteropError: the folder is damaged, does not fit the model, or means what unipetl does not have.
        AttachError: the name is taken.
    """
    folder = files.read(path, head=head)
    layout = Layout(model)
    wanted = _wanted(folder.adapter, layout, ignore_dropout=ignore_dropout)
    own = Own((), False, {})
    if folder.head is not None:
        own = read_own(layout.places, head_tensors(folder.head, folder.adapter, model), prefix="")
    return attach_filled(model, wanted, own, name)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    called: str | None = None,
    base_model: str | None = None,
    ignore_dropout: bool = False,
) -> Path:
    """Write an attachment as a folder that the library reads as the same function of the same base.

    The library reads it with ``model.load_adapter(path, use_safetensors=True)``. What is written is read back first.

    Args:
        model: a model with attachments.
        path: the folder; made if absent.
        name: which attachment; None if there is only one.
        called: the adapter's name in the folder; None is the attachment's.
        base_model: what the folder calls its base; None is where the model was loaded from.
        ignore_dropout: accept a bottleneck with dropout, which the library has elsewhere; it is written without.

    Raises:
        InteropError: the format cannot say this method; the message says what, and why.
        AttachError: there is no such attachment.
    """
    record = state_of(model).find(name)
    adapter = record.name if called is None else called
    if not adapter or "." in adapter:
        raise InteropError(f"AdapterHub's names have no dot in them, and {adapter!r} has; pass another as called=.")
    layout = Layout(model)
    head = _head_of(model, record)
    configs, tensors = members(record, layout, adapter, ignore_dropout=ignore_dropout)
    about: Config = {
        "hidden_size": layout.width,
        "model_class": type(model).__name__,
        "model_name": name_of_base(model) if base_model is None else base_model,
        "model_type": layout.kind,
        "name": adapter,
        "version": f"adapters.{_VERSION}",
    }
    config = configs[0] if len(configs) == 1 else {"architecture": "union", "configs": configs}
    part = files.Part(Path(path) / files.CONFIG, {**about, "config": config}, tensors)
    _refuse_other_meaning(part, layout, record)
    folder = files.write(path, part.config, tensors)
    if head:
        labels = getattr(getattr(model, "config", None), "label2id", None)
        about = {**about, "name": None, "config": None, "num_labels": len(labels or ()), "label2id": labels}
        files.write_head(folder, about, head)
    return folder


#: The version of the library whose files these are; from 1.1.0 on a LoRA's alpha counts.
_VERSION = "1.3.0"


def _head_of(model: nn.Module, record: Record) -> dict[str, Tensor]:
    """Return the head's tensors where the attachment trains it; other parameters of the model have no format."""
    trained = [name for name, _ in record.plan.trained]
    other = sorted(set(trained) - set(record.plan.head))
    if other:
        raise InteropError(f"AdapterHub trains no parameters of the model but its head; here is {other[0]!r}. {KEPT}")
    values: dict[str, Any] = dict(own_parameters(model)) if record.active else dict(record.parked)
    return {name: values[name].detach() for name in trained}


def _refuse_other_meaning(part: files.Part, layout: Layout, record: Record) -> None:
    """Read what would be written, and refuse it unless it means exactly the attachment's places.

    Raises:
        InteropError: the library would have more, fewer or other places with this config.
    """
    try:
        wanted = _wanted(part, layout, ignore_dropout=True)
    except InteropError as error:
        raise InteropError(f"AdapterHub's settings cannot name exactly these places: {error} {KEPT}") from error
    found = {*wanted.values, *(one for group in wanted.shared for one in _together(record, group))}
    meant = {one.site.name for one in record.plan.placements}
    if found != meant:
        first = sorted(found ^ meant)[0]
        raise InteropError(f"AdapterHub's settings cannot name exactly these places; {first!r} differs. {KEPT}")


def _together(record: Record, site: str) -> set[str]:
    group = next(one.group for one in record.plan.placements if one.site.name == site)
    return {one.site.name for one in record.plan.placements if one.group == group}


def _wanted(part: files.Part, layout: Layout, *, ignore_dropout: bool) -> Wanted:
    pool = Pool(part.tensors, part.name, layout, repr(str(part.path)))
    specs: dict[str, BottleneckSpec | LoraSpec | PrefixSpec] = {}
    values: dict[str, dict[str, Tensor]] = {}
    shared: dict[str, dict[str, Tensor]] = {}
    for settings in read_settings(part):
        if settings.kind == "prefix":
            prefixes, found, both = read_prefix(settings, layout, pool)
            specs |= prefixes
            shared |= both
        elif settings.kind == "lora":
            loras, found = read_lora(settings, layout, pool)
            specs |= loras
        else:
            bottlenecks, found = read_bottleneck(settings, layout, pool, ignore_dropout=ignore_dropout)
            specs |= bottlenecks
        values |= found
    pool.refuse_rest()
    modifications = modifications_of(layout.sites, specs, lambda representation, spec: spec.at(representation))
    return Wanted(modifications, values, {}, shared)
