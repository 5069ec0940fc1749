"""A padded row of a batch gives what the row gives alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.testing.compare import Call, close, outputs, require, scatter

#: Arguments that run along the tokens, under the mask that says which of them are padding.
_MASKS = {
    "attention_mask": ("input_ids", "attention_mask", "position_ids", "bbox"),
    "decoder_attention_mask": ("decoder_input_ids", "decoder_attention_mask"),
}


def ignores_padding(
    model: nn.Module, method: Method | str, call: Call, *, atol: float = 1e-9, **attaching: Any
) -> None:
    """Compare every row of a padded batch with the row without its padding, where it has tokens.

    Raises:
        CheckError: the law does not hold.
    """
    require(any(name in call for name in _MASKS), "this check needs a call with a mask.")
    require(any(not call[name].bool().all() for name in _MASKS if name in call), "nothing is padded in this call.")
    scatter(attach(model, method, **attaching))
    together = outputs(model, call)
    for row in range(together.shape[0]):
        single = {name: value[row : row + 1] for name, value in call.items()}
        for mask, along in _MASKS.items():
            if mask in call:
                real = call[mask][row].bool()
                single |= {name: single[name][:, real] for name in along if name in single}
        alone = outputs(model, single)[0]
        found = together[row]
        if alone.shape != found.shape:  # one result for each token; else one for each row
            seen = call["decoder_attention_mask"] if "decoder_attention_mask" in call else call["attention_mask"]
            image = found.shape[0] - seen.shape[1]  # what is seen stands before the text
            found = found[nn.functional.pad(seen[row].bool(), (image, 0), value=True)]
        close(found, alone, f"row {row} of a padded batch against the row alone", atol)
