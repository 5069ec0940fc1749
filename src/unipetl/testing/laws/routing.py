"""A batch whose rows have attachments of their own is computed as each row's attachment computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import activate, attach, routed
from unipetl.method import Method
from unipetl.testing.compare import Call, close, outputs, require, same, scatter
from unipetl.testing.laws.generation import generate
from unipetl.testing.laws.removal import Snapshot

Names = Sequence[str | Sequence[str] | None]


def attach_all(model: nn.Module, methods: Sequence[Method | str], **attaching: Any) -> list[str]:
    """Attach every method with random values, what it trains of the model itself included; none is active then."""
    names = []
    for number, method in enumerate(methods):
        if number:
            activate(model, None)
        names.append(f"n{number}")
        attachment = scatter(attach(model, method, name=names[-1], **attaching), seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, tensor in attachment.tensors().items():
                if name.startswith("model/"):
                    tensor.add_((torch.randn(tensor.shape, generator=generator) * 0.1).to(tensor))
    activate(model, None)
    return names


def routes_rows_alone(model: nn.Module, rows: Names, call: Call, *, atol: float = 1e-9) -> None:
    """Compute a batch with routed rows, and every row with its attachment active; compare, and see what is left.

    Args:
        model: a model with attachments, in evaluation mode.
        rows: for each row of the call what it is computed with.
        call: the arguments of one call.
        atol: how far results may differ.

    Raises:
        CheckError: the law does not hold.
    """
    wanted: list[Tensor] = []
    for number, names in enumerate(rows):
        activate(model, names)
        wanted.append(outputs(model, call)[number])
    before, plain = Snapshot.of(model), outputs(model, call)
    with routed(model, rows):
        found = outputs(model, call)
        again = outputs(model, call)
    close(found, torch.stack(wanted), "rows routed together, against each alone", atol)
    same(again, found, "the same rows routed once more")
    before.require_unchanged(model, "after the block of routed rows")
    same(outputs(model, call), plain, "the result after the block of routed rows")


def generates_rows_alone(model: nn.Module, rows: Names, prompt: Call, *, beams: int = 1, atol: float = 1e-6) -> None:
    """Generate with routed rows, and from every row alone with its attachment active; compare.

    Raises:
        CheckError: the law does not hold.
    """
    wanted, scores = [], []
    for number, names in enumerate(rows):
        activate(model, names)
        own = generate(model, {name: value[number : number + 1] for name, value in prompt.items()}, num_beams=beams)
        wanted.append(own[0])
        scores.append(own[1])
    activate(model, None)
    with routed(model, rows):
        found, found_scores = generate(model, prompt, num_beams=beams)
    require(torch.equal(found, torch.cat(wanted)), f"other tokens: {found.tolist()} for {torch.cat(wanted).tolist()}.")
    close(found_scores, torch.cat(scores), "the scores of routed rows", atol)


def trains_rows_alone(model: nn.Module, rows: Sequence[str | None], call: Call, *, atol: float = 1e-9) -> None:
    """Compare the gradients of one batch of routed rows with the sum of those of each row alone.

    The loss is a sum over the rows. Every tensor of an attachment that is not named must get none.

    Raises:
        CheckError: the law does not hold.
    """
    from unipetl.attaching import attachments

    def tensors() -> dict[tuple[str, str], Tensor]:
        return {(one.name, key): value for one in attachments(model) for key, value in one.tensors().items()}

    def weighed(number: int | None) -> Tensor:
        result = model(**call)
        logits = result["logits"] if "logits" in result else result["last_hidden_state"]
        size = torch.arange(1, logits.numel() // len(rows) + 1, dtype=logits.dtype).view(logits.shape[1:])
        chosen = logits if number is None else logits[number : number + 1]
        return (chosen * size.sin()).sum()

    wanted: dict[tuple[str, str], Tensor] = {}
    for number, name in enumerate(rows):
        activate(model, name)
        loss = weighed(number)
        if loss.requires_grad:
            torch.autograd.backward(loss)
    for key, tensor in tensors().items():
        wanted[key] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
        tensor.grad = None
    activate(model, None)
    with routed(model, rows):
        torch.autograd.backward(weighed(None))
    for key, tensor in tensors().items():
        if key[0] not in rows:
            require(tensor.grad is None, f"{key} is of an attachment that no row names, and got a gradient.")
        found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        close(found, wanted[key], f"the gradient of {key} from routed rows", atol)
    left = [name for name, p in model.named_parameters() if p.grad is not None and not p.requires_grad]
    require(not left, f"frozen parameters got gradients: {left[:3]}.")
