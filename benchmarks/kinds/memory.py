"""What a training step keeps and needs, in bytes. Nothing is timed, so there are no rounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.clock import Seconds
from benchmarks.libraries import Library
from benchmarks.references import FLOOR, FULL, HEAD
from benchmarks.saved import alive, saved_bytes
from benchmarks.shapes import Shape, batch
from benchmarks.variants import make, optimizer, tried


class Memory:
    """For every method, in bytes:

    saved: what autograd saves in the forward pass, parameters not counted.
    held: what is alive between the forward and the backward pass, the logits among it.
    peak: the most that is alive in a first step (forward, backward, AdamW), the method's own parameters among it.
    """

    reference = FULL

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        methods = [one for one in methods if not one.endswith("_folded")]
        variants = make(of, library, methods, (FLOOR, HEAD, FULL), device)
        base = {one.data_ptr() for one in variants.base.parameters()}
        inputs = batch(of, device)
        self.facts: dict[str, dict[str, Any]] = {}

        def count(model: Any) -> dict[str, int]:
            model.train()
            parameters = list(model.parameters())
            fixed = [*parameters, *model.buffers(), *inputs.values()]
            model(**inputs)  # what is made once is made now
            found = {"saved": saved_bytes(lambda: model(**inputs).loss, fixed)}
            found["held"] = alive(lambda: model(**inputs).loss, device)[0]

            def step() -> Any:
                model(**inputs).loss.backward()
                stepping = optimizer(model)
                stepping.step()
                return stepping

            added = sum(one.nbytes for one in parameters if one.data_ptr() not in base)
            found["peak"] = alive(step, device)[1] + added
            return found

        trained = variants.trained()
        for name in list(variants.models):
            model = variants.models[name]
            with tried(variants.problems, name):
                self.facts[name] = {"trained": trained[name], **count(model)}
            del model, variants.models[name]  # its gradients and the optimizer's state go with it
        self.problems = variants.problems

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        return []
