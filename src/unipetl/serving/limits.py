"""What a server takes at most: sizes, times and counts, checked against each other once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from unipetl.errors import RefusedError, ServingError, nearest


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Attributes:
        max_inputs: texts of one request.
        max_characters: characters of one text.
        max_tokens: tokens of one text, as the model reads it.
        max_new_tokens: tokens that are written for one text; also what a run's own settings are cut to.
        max_beams: beams of a search.
        max_body_bytes: bytes of a request's body.
        max_queue: texts that wait; further requests are refused until there is room.
        max_attachments: attachments on the model at once.
        timeout: seconds from a request's acceptance to its answer; before that, seconds for its body to come.
        grace: seconds in which accepted requests are finished after a signal to stop.
        max_wait_ms: milliseconds that a text waits for others to share its batch.
        max_batch_rows: texts of one batch.
        max_batch_tokens: rows times longest row of one batch.
    """

    max_inputs: int = 64
    max_characters: int = 20_000
    max_tokens: int = 1_024
    max_new_tokens: int = 256
    max_beams: int = 8
    max_body_bytes: int = 4_000_000
    max_queue: int = 512
    max_attachments: int = 256
    timeout: float = 30.0
    grace: float = 20.0
    max_wait_ms: float = 4.0
    max_batch_rows: int = 32
    max_batch_tokens: int = 8_192

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ServingError: one is not positive, or two do not fit each other.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            least = 0 if one.name in ("max_wait_ms", "grace") else 1 if isinstance(one.default, int) else 1e-3
            if not value >= least:
                raise ServingError(f"limits: {one.name} is {value}; it must be at least {least:g}.")
        if self.max_inputs > self.max_queue:
            raise ServingError(
                f"limits: a request may have {self.max_inputs} inputs and only {self.max_queue} can wait; give a "
                "max_queue (--max-queue) of at least max_inputs (--max-inputs)."
            )

    def check_texts(self, texts: list[str]) -> None:
        """Refuse too many texts, or too long ones.

        Raises:
            RefusedError: 413.
        """
        if len(texts) > self.max_inputs:
            raise RefusedError(413, f"{len(texts)} inputs; this server takes up to {self.max_inputs} in one request.")
        for number, text in enumerate(texts):
            if len(text) > self.max_characters:
                found = f"input {number} has {len(text):,} characters"
                raise RefusedError(413, f"{found}; this server takes up to {self.max_characters:,}.")

    def check_tokens(self, number: int, count: int) -> None:
        """Refuse a text of no tokens (422), or of too many (413).

        Raises:
            RefusedError: it is one of the two.
        """
        if count == 0:
            raise RefusedError(422, f"input {number} is empty: the tokenizer finds nothing in it to read.")
        if count > self.max_tokens:
            raise RefusedError(
                413, f"input {number} has {count:,} tokens; this server takes up to {self.max_tokens:,}."
            )

    def check_writing(self, new_tokens: int | None, beams: int | None) -> None:
        """Refuse generation settings that are too large.

        Raises:
            RefusedError: 413.
        """
        for name, value, most in (
            ("max_new_tokens", new_tokens, self.max_new_tokens),
            ("num_beams", beams, self.max_beams),
        ):
            if value is not None and value > most:
                raise RefusedError(413, f"{name} is {value}; this server takes up to {most}.")


def near(name: str, names: list[str]) -> str:
    """Say which of ``names`` a misspelt one may have meant, and what there is."""
    found = nearest(name, names)
    hint = f" Did you mean {found!r}?" if found else ""
    shown = ", ".join(map(repr, sorted(names)[:20])) or "none"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{hint} There is {shown}{more}."
