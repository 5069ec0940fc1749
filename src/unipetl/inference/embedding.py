"""Tells what makes a vector of a token, a patch or a frame: the last map before the layers of a stack."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

from unipetl.architectures import join_path
from unipetl.architectures.embeddings import is_patch_convolution, token_embedding
from unipetl.inference.linear import features
from unipetl.inference.tracing import Call, Trace


def embedding_of(trace: Trace, model: nn.Module, root: str, block: str, blocks: Collection[str]) -> str:
    """Return the path of a stack's embedding; "" where nothing is understood.

    It is looked for in the stack's module first, then in those around it, up to the last layer of another stack.

    Args:
        trace: a forward pass.
        model: the model.
        root: path of the stack's module.
        block: path of its first block.
        blocks: the paths of all blocks of the model.
    """
    first = trace.first(block)
    if first is None or first.read is None:
        return ""
    since = max((one.end for one in trace.calls if one.path in blocks and one.end < first.start), default=-1)
    calls = [one for one in trace.calls if since < one.start and one.end < first.start and one.gave is not None]
    for outer in _around(root):
        own = [token_embedding(one) for one in (model.get_submodule(outer), model)]
        weights = {id(one.weight) for one in own if isinstance(one, nn.Embedding)}
        inside = {id(module): path for path, module in model.get_submodule(outer).named_modules(remove_duplicate=False)}
        near = [call for call in calls if inside.get(id(call.module))]
        tokens = [call for call in near if isinstance(call.module, nn.Embedding) and id(call.module.weight) in weights]
        maps = [call for call in reversed(near) if _gives(call, first.read.shape[-1]) and not _again(trace, call)]
        if tokens or maps:
            return join_path(outer, inside[id((tokens or maps)[0].module)])
    return ""


def _around(path: str) -> Iterator[str]:
    """Yield a module's path and those of all modules around it, the model's own last."""
    yield path
    while path:
        path = path.rpartition(".")[0]
        yield path


def _gives(call: Call, width: int) -> bool:
    """Return whether a call is one of a linear map, or of a convolution, to vectors of the layers' width."""
    if is_patch_convolution(call.module):
        return call.module.out_channels == width
    linear = features(call.module)
    return linear is not None and linear[1] == width


def _again(trace: Trace, call: Call) -> bool:
    """Return whether the module computes at other times, too, where it makes other things."""
    return sum(one.module is call.module for one in trace.calls) > 1
