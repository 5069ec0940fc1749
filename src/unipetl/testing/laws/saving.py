"""What is saved and loaded onto the same base computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.storage import load, save
from unipetl.testing.compare import Call, outputs, require, same, scatter


def survives_saving(
    model: nn.Module, twin: nn.Module, method: Method | str, call: Call, folder: Path, **attaching: Any
) -> None:
    """Attach to ``model``, save, load onto ``twin`` (an equal model), and compare tensors and results.

    Raises:
        CheckError: the law does not hold.
    """
    attachment = scatter(attach(model, method, seed=3, **attaching))
    with torch.no_grad():
        for name, tensor in attachment.tensors().items():
            if name.startswith("model/"):
                tensor.mul_(1.5).add_(0.1)
    save(model, folder)
    options = {"architecture": attaching["architecture"]} if "architecture" in attaching else {}
    loaded = load(twin, folder, **options)
    wanted, found = attachment.tensors(), loaded.tensors()
    require(set(wanted) == set(found), f"names of saved and loaded tensors differ: {sorted(set(wanted) ^ set(found))}.")
    for name, tensor in wanted.items():
        same(found[name], tensor, f"{name} after loading")
    require(loaded.method.canonical() == attachment.method.canonical(), "the loaded method is another one.")
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    twins = {name: parameter.requires_grad for name, parameter in twin.named_parameters()}
    require(flags == twins, "the loaded attachment trains other parameters.")
    same(outputs(twin, call), outputs(model, call), "the result after loading")
