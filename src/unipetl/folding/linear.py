"""Reads the affine map of a linear module as a matrix and a vector, and makes the edits that write another.

A map is (W, b), W (out, in) and b (out,), in at least float32 whatever the module's own precision, so that
folding rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipetl.architectures import Port
from unipetl.architectures.embeddings import is_patch_convolution
from unipetl.errors import FoldError
from unipetl.folding.edits import Edit, SetAttribute, SetModule, SetParameter

#: How many unit vectors a quantised module is given at a time.
_ROWS = 1024
#: The attributes with the sizes of a linear module, as (in, out): torch's, and those of transformers' Conv1D.
_SIZES = (("in_features", "out_features"), ("nx", "nf"))


@dataclass
class Affine:
    """``y = W x + b``: ``weight`` (out, in), ``bias`` (out,) or None."""

    weight: Tensor
    bias: Tensor | None


def why_unreadable(module: nn.Module) -> str | None:
    """Return why the weight of a linear module cannot be read and written as numbers, or None."""
    weight = module._parameters.get("weight")
    kind = type(module).__name__
    why = why_unreadable_parameter(weight)
    if weight is None or why is not None:
        return f"{kind} {why}"
    if isinstance(module, nn.Embedding):
        if module.max_norm is not None:
            return f"{kind} renormalises its rows as it reads them"
        if lookup_scale(module) is None:
            return f"{kind} computes more than a row of its weight"
    elif is_patch_convolution(module):
        pass
    elif weight.dim() != 2 or _sizes(module) is None:
        return f"{kind} is no linear map with a matrix"
    if any("parametri" in name for name in module._modules):
        return f"{kind} computes its weight from other parameters (a parametrisation)"
    return None


def why_unreadable_parameter(weight: nn.Parameter | None) -> str | None:
    """Return why the values of a parameter cannot be read and written as numbers, or None."""
    if weight is None or type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
        return "keeps its weight in a packed form (quantised or sharded)"
    if weight.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        return f"keeps its weight as {str(weight.dtype).removeprefix('torch.')} (quantised)"
    return "has its weight on the meta device (offloaded)" if weight.is_meta else None


def parameter_at(model: nn.Module, path: str) -> tuple[str, nn.Parameter | None]:
    """Return the weight of the module at ``path``, or the parameter of that path itself, with its name."""
    owner, _, name = path.rpartition(".")
    parent = model.get_submodule(owner)
    if name in parent._parameters:
        return path, parent._parameters[name]
    return f"{path}.weight", model.get_submodule(path)._parameters.get("weight")


def read(module: nn.Module) -> Affine:
    """Return the affine map of a module that [why_unreadable][] finds nothing against."""
    weight, bias = module._parameters["weight"], module._parameters.get("bias")
    assert weight is not None
    dtype = torch.promote_types(weight.dtype, torch.float32)
    matrix = weight.detach().to(dtype)
    if isinstance(module, nn.Embedding):
        matrix = matrix * (lookup_scale(module) or 1.0)
    matrix = matrix.T if transposed(module) else matrix.flatten(1)
    return Affine(matrix, None if bias is None else bias.detach().to(dtype))


def lookup_scale(module: nn.Embedding) -> float | None:
    """Return the factor that a scaled embedding puts on the rows of its weight; None if it does something else."""
    if type(module).forward is nn.Embedding.forward:
        return 1.0
    try:
        with torch.no_grad():
            ids = torch.arange(min(module.num_embeddings, 8), device=module.weight.device)
            rows, made = module.weight[ids], module.forward(ids)
            scale = float(getattr(module, "embed_scale", getattr(module, "scalar_embed_scale", 1.0)))
            same = torch.allclose(made, rows * torch.tensor(scale, dtype=rows.dtype, device=rows.device))
    except (TypeError, ValueError, RuntimeError):
        return None
    return scale if same and scale else None


def transposed(module: nn.Module) -> bool:
    """Return whether the module keeps W as (in, out), as transformers' Conv1D and embeddings do."""
    return isinstance(module, nn.Embedding) or _sizes(module) == _SIZES[1]


def rows(port: Port, features: int) -> Tensor:
    """Return the rows of a module's W, of so many, that make the features a port selects."""
    if port.columns is None:
        return torch.arange(features)
    return port.columns.places()


def write(model: nn.Module, path: str, affine: Affine) -> Iterator[Edit]:
    """Yield the edits that give the module at ``path`` another map, in the module's own dtype and orientation.

    Raises:
        FoldError: a value is too large for the module's dtype.
    """
    module = model.get_submodule(path)
    old = module._parameters["weight"]
    assert old is not None
    matrix = affine.weight.T if transposed(module) else affine.weight
    if isinstance(module, nn.Embedding):
        if affine.bias is not None:  # a token's number is a vector with a single one, which any constant goes with
            matrix = matrix + affine.bias
        yield SetParameter(f"{path}.weight", parameter(matrix / (lookup_scale(module) or 1.0), old, path))
        return
    if is_patch_convolution(module):
        matrix = matrix.view_as(old)
    yield SetParameter(f"{path}.weight", parameter(matrix, old, path))
    if affine.bias is not None:
        before = module._parameters.get("bias")
        yield SetParameter(f"{path}.bias", parameter(affine.bias, old if before is None else before, path))
    names = _sizes(module)
    for name, size in zip(names or (), reversed(affine.weight.shape), strict=names is not None):
        if module.__dict__[name] != size:
            yield SetAttribute(path, name, size)


def parameter(values: Tensor, like: nn.Parameter, path: str) -> nn.Parameter:
    """Return a parameter with ``values``, in the dtype and with the flag of ``like``.

    Raises:
        FoldError: a value is not finite in that dtype.
    """
    data = values.to(like.dtype).contiguous()
    if not bool(torch.isfinite(data).all()):
        raise FoldError(
            f"folding into {path!r} gives values that are not finite in {str(like.dtype).removeprefix('torch.')}."
        )
    if data.data_ptr() == like.data_ptr():
        data = data.clone()
    return nn.Parameter(data, requires_grad=like.requires_grad)


def can_be_dense(module: nn.Module) -> bool:
    """Return whether [dequantised][] can be tried: a linear module of known sizes, whose values are here."""
    held = [*module.parameters(), *module.buffers()]
    return _sizes(module) == _SIZES[0] and not any(one.is_meta for one in held)


def dequantised(model: nn.Module, path: str) -> Edit:
    """Return the edit that replaces a quantised linear module by a dense one that computes the same.

    The weight is read off what the module computes for unit vectors, whatever its way of storing it; the bias for
    zeros. It is compared on random vectors, since some kernels round their input as well.

    Raises:
        FoldError: the module cannot be called so, or is not linear.
    """
    module = model.get_submodule(path)
    like = next((one for one in model.parameters() if one.is_floating_point()), None)
    device = next((one.device for one in (*module.parameters(), *module.buffers())), None)
    inner = int(module.__dict__["in_features"])
    dtype = torch.float32 if like is None else like.dtype
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            bias = module.forward(torch.zeros(1, inner, dtype=dtype, device=device))[0]
            units = torch.eye(inner, dtype=dtype, device=device)
            weight = torch.cat([module.forward(rows) - bias for rows in torch.split(units, _ROWS)]).T.contiguous()
            x = torch.randn(16, inner, generator=generator).to(dtype=dtype, device=device)
            gap = (module.forward(x) - nn.functional.linear(x, weight, bias)).abs().max()
            size = nn.functional.linear(x, weight).abs().max()
    except (RuntimeError, TypeError, ValueError) as error:
        raise FoldError(f"{path!r}: its weight cannot be read off what it computes: {error}") from error
    if not bool(gap <= 0.05 * size):
        raise FoldError(f"{path!r}: a {type(module).__name__} that computes no linear map; it cannot be made dense.")
    biased = getattr(module, "bias", None) is not None
    dense = nn.Linear(inner, weight.shape[0], bias=biased, device="meta")
    dense.weight = nn.Parameter(weight, requires_grad=False)
    if biased:
        dense.bias = nn.Parameter(bias, requires_grad=False)
    return SetModule(path, dense.train(module.training))


def _sizes(module: nn.Module) -> tuple[str, str] | None:
    for names in _SIZES:
        if all(isinstance(module.__dict__.get(name), int) for name in names):
            return names
    return None
