"""The settings of AdapterHub's methods: the file's values over the library's defaults, typed and checked.

What a setting means is said where it is used; settings that mean a function outside the design space are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unipetl.errors import InteropError, nearest
from unipetl.interop.adapterhub.files import Part

#: The defaults of library version 1.3, by method. Required settings have none.
BOTTLENECK: dict[str, Any] = {
    "mh_adapter": None, "output_adapter": None, "reduction_factor": None, "non_linearity": None,
    "original_ln_before": False, "original_ln_after": True, "ln_before": False, "ln_after": False,
    "init_weights": "bert", "init_weights_seed": None, "is_parallel": False, "scaling": 1.0, "use_gating": False,
    "residual_before_ln": True, "adapter_residual_before_ln": False, "inv_adapter": None,
    "inv_adapter_reduction_factor": None, "cross_adapter": False, "leave_out": [], "dropout": 0.0, "phm_layer": False,
    "phm_dim": 4, "factorized_phm_W": True, "shared_W_phm": False, "shared_phm_rule": True,
    "factorized_phm_rule": False, "phm_c_init": "normal", "phm_init_range": 0.0001, "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform", "phm_rank": 1, "phm_bias": True, "stochastic_depth": 0.0,
}  # fmt: skip
LORA: dict[str, Any] = {
    "architecture": "lora", "selfattn_lora": True, "intermediate_lora": False, "output_lora": False, "leave_out": [],
    "r": 8, "alpha": 8, "dropout": 0.0, "attn_matrices": ["q", "v"], "composition_mode": "add", "init_weights": "lora",
    "init_weights_seed": None, "use_gating": False, "use_dora": False, "vera_d": None, "vera_b": None, "dtype": None,
}  # fmt: skip
PREFIX: dict[str, Any] = {
    "architecture": "prefix_tuning", "encoder_prefix": True, "cross_prefix": True, "leave_out": [], "flat": False,
    "prefix_length": 30, "bottleneck_size": 512, "non_linearity": "tanh", "dropout": 0.0, "use_gating": False,
    "shared_gating": True, "init_weights_seed": None,
}  # fmt: skip
_KNOWN = {None: ("bottleneck", BOTTLENECK), "lora": ("lora", LORA), "prefix_tuning": ("prefix", PREFIX)}
_FOREIGN = {
    "prompt_tuning": "its prompt stands behind the embeddings' norm and stays in the results, where a classifier reads "
    "it; unipetl's stands in front of that norm and is taken out again",
    "reft": "interventions at chosen positions of the text are no change of every position",
    "mtl_lora": "it is another function for each task",
}
#: setting -> what it means, of those that are outside the design space whatever their value (other than false).
_REFUSED = {
    "use_gating": "a gate that is averaged over the text (UniPELT)",
    "phm_layer": "matrices that are sums of Kronecker products (Compacter)",
    "inv_adapter": "an invertible adapter on the embeddings",
    "use_dora": "a learned norm of every row (DoRA)",
    "vera_d": "shared random matrices (VeRA)",
    "vera_b": "shared random matrices (VeRA)",
}
#: Names that files without a version use for other functions than the library's of today.
_OLD_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_FIRST_WITH_ALPHA = (1, 1, 0)
#: No rank, length or width is above this.
LARGEST = 1 << 24


@dataclass(frozen=True)
class Settings:
    """One method of a file: ``kind`` is ``bottleneck``, ``lora`` or ``prefix``."""

    kind: str
    values: Mapping[str, Any]
    where: str

    def flag(self, name: str) -> bool:
        """Return a setting that is true or false."""
        return bool(self._typed(name, bool))

    def number(self, name: str) -> float:
        """Return a number."""
        return float(self._typed(name, (int, float)))

    def whole(self, name: str) -> int:
        """Return a whole number above 0."""
        value = int(self._typed(name, int))
        if not 1 <= value <= LARGEST:
            raise InteropError(f"{self.where}: {name!r} is {value}; it must be between 1 and {LARGEST:,}.")
        return value

    def word(self, name: str) -> str:
        """Return a text."""
        return str(self._typed(name, str))

    def left_out(self) -> set[int]:
        """Return the layers without this method, counted through all stacks."""
        layers = self._typed("leave_out", list)
        if not all(type(layer) is int for layer in layers):
            raise InteropError(f"{self.where}: 'leave_out' is {layers!r}; expected numbers of layers.")
        return set(layers)

    def _typed(self, name: str, kind: type | tuple[type, ...]) -> Any:
        value = self.values[name]
        wrong = value is None or not isinstance(value, kind)
        if wrong or (isinstance(value, bool) and kind is not bool):
            raise InteropError(f"{self.where}: {name!r} is {value!r}, which the library does not write there.")
        return value


def read_settings(part: Part) -> list[Settings]:
    """Return the methods that an adapter's config names, one for each member of a union.

    Raises:
        InteropError: a method, a setting or a value means a function that unipetl does not have.
    """
    config, where = part.config["config"], repr(str(part.path))
    if not isinstance(config, Mapping):
        raise InteropError(f"{where}: 'config' is {config!r}; expected the settings themselves.")
    members = config.get("configs") if config.get("architecture") == "union" else [config]
    if not isinstance(members, list) or not all(isinstance(one, Mapping) for one in members) or not members:
        raise InteropError(f"{where}: a union without members.")
    return [_settings(one, part, where, alone=len(members) == 1) for one in members]


def _settings(config: Mapping[str, Any], part: Part, where: str, *, alone: bool) -> Settings:
    architecture = config.get("architecture")
    if not isinstance(architecture, str | None) or architecture not in _KNOWN:
        reason = _FOREIGN.get(str(architecture), "unipetl does not know it")
        raise InteropError(f"{where}: architecture {architecture!r}: {reason}.")
    kind, defaults = _KNOWN[architecture]
    given = {key: value for key, value in config.items() if (key, value) != ("architecture", None)}
    old = given.pop("invertible_adapter", None)
    if old:
        given["inv_adapter"] = old.get("block_type", True) if isinstance(old, Mapping) else old
    strange = sorted(set(given) - set(defaults))
    if strange:
        near = nearest(strange[0], defaults)
        hint = f" Did the writer mean {near!r}?" if near else ""
        raise InteropError(f"{where}: unknown setting {strange[0]!r} of {kind!r}, so its meaning is not known.{hint}")
    values = {**defaults, **given}
    if part.config.get("type") == "text_task" and not any(".invertible_adapters." in f".{key}" for key in part.tensors):
        values["inv_adapter"] = None  # old task adapters name the language adapter's, and have none
    _refuse(values, where)
    if "version" not in part.config and values.get("non_linearity") in _OLD_ACTIVATIONS:
        values["non_linearity"] = _OLD_ACTIVATIONS[values["non_linearity"]]
    if kind == "lora" and _ignored_alpha(part) and values["r"] != values["alpha"]:
        if not alone:
            raise InteropError(
                f"{where}: this version of the library trained LoRA without its alpha, and today's computes a union's "
                "with it; which of the two is meant cannot be told. Set alpha to r if it is as trained."
            )
        values["alpha"] = values["r"]
    return Settings(kind, values, where)


def _refuse(values: Mapping[str, Any], where: str) -> None:
    for name, meaning in _REFUSED.items():
        if values.get(name) not in (None, False):
            raise InteropError(f"{where}: {name}={values[name]!r} means {meaning}, which unipetl does not have.")


def _ignored_alpha(part: Part) -> bool:
    """Return whether the library's version computed LoRA with a factor of 1, whatever alpha said."""
    found = re.match(r"adapters\.(\d+)\.(\d+)\.(\d+)", str(part.config.get("version", "")))
    return found is not None and tuple(int(number) for number in found.groups()) < _FIRST_WITH_ALPHA


def refuse_training_only(settings: Settings, *, ignore_dropout: bool, names: tuple[str, ...]) -> None:
    """Refuse dropout that acts elsewhere than ours, unless the caller wants the function without it.

    Raises:
        InteropError: there is such a dropout.
    """
    if ignore_dropout:
        return
    for name in names:
        if settings.number(name):
            raise InteropError(
                f"{settings.where}: {name}={settings.values[name]} acts, in training alone, where unipetl has none "
                "(on the scaled result of the bottleneck). Pass ignore_dropout=True for the same function without it."
            )
