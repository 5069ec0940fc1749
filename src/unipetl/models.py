"""A model named in text, as a config and as a model with or without weights: a standard name, a folder, a hub name.

Standard names need neither weights nor a network; see [STANDARD][unipetl.architectures.standard.STANDARD].
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from unipetl.architectures.standard import STANDARD, find_standard
from unipetl.errors import DownloadError, PlanError, first_line, nearest, unknown

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


def standard_names() -> tuple[str, ...]:
    """Return the short names of the models whose dimensions are built in."""
    return tuple(one.names[0] for one in STANDARD)


def standard_config(name: str) -> PreTrainedConfig | None:
    """Return the config of the standard model called ``name``, or None if there is none of that name."""
    one = find_standard(name)
    if one is None:
        return None
    from transformers import AutoConfig

    return AutoConfig.for_model(one.model_type, architectures=[one.model_class], **one.dimensions)


def resolve_config(name: str | Path) -> PreTrainedConfig:
    """Return the config that ``name`` stands for: a local folder, a standard name, or a name on the hub.

    Raises:
        PlanError: a folder's config cannot be read.
        DownloadError: nothing of that name is here, and the hub gives nothing; the message says what would work.
    """
    text = str(name)
    folder = Path(text).expanduser()
    looks_local = text.startswith((".", "/", "~")) or folder.exists()
    if (folder / "config.json").is_file() or (looks_local and find_standard(text) is None):
        return _local(folder)
    return standard_config(text) or _from_hub(text)


def skeleton(config: PreTrainedConfig, model_class: str | None = None) -> nn.Module:
    """Return a model of ``config`` on the meta device: shapes without weights.

    The class is ``model_class`` if given, else the one the config names. A masked language model's checkpoint is
    taken for what it is used as: its encoder, without the language-model head and the pooler.

    Raises:
        PlanError: there is no such class, or transformers cannot build it from this config.
    """
    import torch
    import transformers

    from unipetl.planning import model_from_config

    named = (getattr(config, "architectures", None) or [""])[0]
    try:
        with torch.device("meta"):
            if model_class is not None:
                return _class_of(config, model_class)(config)
            if named.endswith("ForMaskedLM"):
                model = transformers.AutoModel.from_config(config)
                without_pooler = "add_pooling_layer" in inspect.signature(type(model)).parameters
                return type(model)(config, add_pooling_layer=False) if without_pooler else model
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"transformers cannot build a model from this {type(config).__name__}: {error}") from error
    return model_from_config(config)


def _local(folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    if not folder.exists():
        raise PlanError(f"model {str(folder)!r}: there is no such folder.")
    if not (folder / "config.json").is_file():
        raise PlanError(f"model {str(folder)!r}: expected a folder with a config.json, as save_pretrained writes it.")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"model {str(folder)!r}: its config.json cannot be used: {first_line(error)}") from error


def _from_hub(name: str) -> PreTrainedConfig:
    from huggingface_hub import HfApi
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)  # the hub's cache
    except (OSError, ValueError, KeyError):
        pass
    try:
        HfApi().model_info(name, timeout=10)  # one question, where from_pretrained would ask again for half a minute
        return AutoConfig.from_pretrained(name)
    except Exception as error:
        near = nearest(name, standard_names())
        hint = f" Did you mean {near!r}?" if near else ""
        raise DownloadError(
            f"model {name!r}: it is no folder here and no standard model, and the hub gave nothing "
            f"({first_line(error)}).{hint} What works without a network: a folder with a config.json, or one of: "
            f"{', '.join(standard_names())}."
        ) from error


def _class_of(config: PreTrainedConfig, name: str) -> type[nn.Module]:
    import transformers

    family = type(config).__name__.removesuffix("Config")
    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) and name.startswith(family):
        return found
    known = [one for one in dir(transformers) if one.startswith(family) and ("For" in one or one.endswith("Model"))]
    raise PlanError(unknown(f"{family} model class", name, known))


def load_model(name: str | Path, model_class: str | None = None) -> PreTrainedModel:
    """Return a model with its weights, in evaluation mode: from a local folder, or by its name on the hub.

    The class is ``model_class`` if given, else the one that the model's config names.

    Raises:
        PlanError: there is no such class, or the files cannot be used.
        DownloadError: nothing of that name is here, and the hub gives nothing.
    """
    import torch
    import transformers

    text = str(name)
    folder = Path(text).expanduser()
    config = _local(folder) if folder.exists() or text.startswith((".", "/", "~")) else _from_hub(text)
    named = model_class or next(iter(getattr(config, "architectures", None) or [""]))
    kind = _class_of(config, named) if named else transformers.AutoModel
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for a head that is not in the files
            model: PreTrainedModel = kind.from_pretrained(str(folder) if folder.exists() else text)  # type: ignore[union-attr]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise PlanError(f"model {text!r} cannot be loaded as {named or 'a bare model'}: {first_line(error)}") from error
    return model.eval()
