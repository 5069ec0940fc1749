"""Axis 2, *insertion form*: what the learned change reads.

Source: He et al. 2022, section 3.2. Sequential: the module reads h, the representation it changes.
Parallel: it reads x, the input of the sub-layer that produces h.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from unipetl.axis import Axis


class Insertion(Axis):
    """Abstract: what the change reads."""

    axis: ClassVar[str] = "insertion"


class Sequential(Insertion):
    """The change reads h: ``h <- h + f(h)``.

    Args:
        reads: ``itself`` is h. ``normed`` is h passed through the model's own norm that follows it
            (only where one does: ``ffn.residual`` in post-norm models; the released Pfeiffer adapter of
            RoBERTa is this).
    """

    tag: ClassVar[str] = "sequential"
    reads: Literal["itself", "normed"] = "itself"


class Parallel(Insertion):
    """The change reads the sub-layer's input x: ``h <- h + f(x)``.

    Args:
        reads: ``normed`` is what the sub-layer itself reads. ``residual`` is the residual stream before
            the sub-layer's norm; it differs in pre-norm models only (the released parallel FFN adapter
            of mBART reads it). At a projection both are what the projection itself reads.
    """

    tag: ClassVar[str] = "parallel"
    reads: Literal["normed", "residual"] = "normed"


INSERTIONS: tuple[type[Insertion], ...] = (Sequential, Parallel)
