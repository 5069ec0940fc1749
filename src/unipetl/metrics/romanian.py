"""How the paper prepares Romanian before BLEU: six steps, each a function of one line.

    punctuation of other scripts -> Moses' normal punctuation -> no control characters -> Ş, Ţ with a comma below
    -> no diacritics -> Moses' tokens

Hypotheses and references go through all of them, and BLEU then counts the tokens as they are. Scores are higher than
plain sacreBLEU's and must not be compared with them. The steps are those of Moses' and the WMT16 scripts, which the
released code calls; sacremoses has three of them. Two details follow the scripts where sacremoses differs: a comma or a
full stop goes outside a closing quotation mark in Romanian too, and a control character becomes a space. One does not:
the script turns a full-width 1 into a quotation mark, sacremoses into a 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from unipetl.metrics.packages import need

_CEDILLA_TO_COMMA = str.maketrans("ŞşŢţ", "ȘșȚț")
_PLAIN = str.maketrans("ȘșȚțĂăÂâÎî", "SsTtAaAaIi")
_STOP_IN_QUOTES = re.compile(r'(\.+)"(\s*[^<])')


def replace_unicode_punctuation(line: str) -> str:
    """Replace full-width and typographic punctuation by ASCII: ``Moses: replace-unicode-punctuation``."""
    return str(_normaliser().replace_unicode_punct(line))


def normalise_punctuation(line: str) -> str:
    """Give spaces, quotation marks and dashes one form: ``Moses: normalize-punctuation -l ro``."""
    line = str(_normaliser().normalize(line)).replace(',"', '",')
    return _STOP_IN_QUOTES.sub(r'"\1\2', line + "\n").removesuffix("\n")  # the script's line ends in its line break


def remove_control_characters(line: str) -> str:
    """Replace what cannot be printed by a space: ``Moses: remove-non-printing-char``."""
    return "".join(" " if unicodedata.category(character).startswith("C") else character for character in line)


def normalise_romanian(line: str) -> str:
    """Write ş and ţ with a comma below, however they were typed: ``WMT16: normalise-romanian``."""
    return line.translate(_CEDILLA_TO_COMMA)


def remove_diacritics(line: str) -> str:
    """Write ș, ț, ă, â and î as s, t, a, a and i: ``WMT16: remove-diacritics``."""
    return line.translate(_PLAIN)


def tokenise(line: str) -> str:
    """Put a space between tokens: ``Moses: tokenizer -l ro -no-escape``."""
    return str(_tokeniser().tokenize(line, escape=False, return_str=True))


STEPS: tuple[Callable[[str], str], ...] = (
    replace_unicode_punctuation,
    normalise_punctuation,
    remove_control_characters,
    normalise_romanian,
    remove_diacritics,
    tokenise,
)


def prepare(line: str) -> str:
    """Return a line as the paper's BLEU counts it: every step, in order."""
    for step in STEPS:
        line = step(line)
    return line


@cache
def _normaliser() -> Any:
    moses = need("sacremoses", "sacremoses", "the Romanian pipeline before BLEU")
    return moses.MosesPunctNormalizer(lang="ro", perl_parity=True)


@cache
def _tokeniser() -> Any:
    return need("sacremoses", "sacremoses", "the Romanian pipeline before BLEU").MosesTokenizer(lang="ro")
