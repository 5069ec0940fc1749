"""Loading a pretrained model repeatably and without chatter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging


@contextmanager
def loading(seed: int) -> Iterator[None]:
    """Draw new weights from ``seed`` alone and silence transformers; afterwards both are as they were.

    What transformers would report (freshly initialised heads, progress) is expected here and checked by the caller.
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
