r"""Learned vectors in front of the token vectors: prompt tuning.

.. math:: X \leftarrow [P; X], \quad P \in R^{l \times d}

Source: He et al. 2022, section 2.2 and 3.2 (a prefix that acts through the first layer's input only);
Lester et al. 2021. Prompt vectors get no position of their own and shift none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unipetl.forms.form import Delta, Form, Shape, Tokens, normal_


class Prompt(Form):
    """``l`` vectors in front of the sequence, N(0, 0.02) at the start.

    Args:
        length: l.
    """

    tag: ClassVar[str] = "prompt"
    equation: ClassVar[str] = "[P; ·]"
    needs: ClassVar[type[Tokens]] = Tokens

    length: int = Field(gt=0)

    @property
    def starts_at_zero(self) -> bool:
        """False: the prompt takes attention from the start."""
        return False

    def build_shared(self, shapes: Sequence[Shape]) -> None:
        """Nothing is shared between places."""

    def build(self, shape: Shape, shared: Delta | None, index: int) -> PromptDelta:
        """Return the module for one stack."""
        del shared, index
        assert isinstance(shape, Tokens)
        return PromptDelta(self, shape)

    def paper_parameters(self, shape: Shape) -> int:
        """``l d`` (appendix B)."""
        assert isinstance(shape, Tokens)
        return self.length * shape.width


class PromptDelta(Delta):
    """The trainable part of a [Prompt][]: ``prompt`` (l, d)."""

    def __init__(self, form: Prompt, shape: Tokens) -> None:
        super().__init__()
        self.form = form
        self.prompt = nn.Parameter(torch.empty(form.length, shape.width))

    def reset(self, generator: torch.Generator) -> None:
        """Draw N(0, 0.02)."""
        normal_(self.prompt, generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token vectors (batch, n, d) to (batch, l + n, d)."""
        prompt = self.prompt.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat([prompt, tokens], dim=1)
