"""Requests and answers as JSON, with what is documented about each field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from unipetl.serving.source import LONGEST_NAME


def _whole(value: Any) -> Any:
    """Take 6.0 for 6, as JSON does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
Positive = Annotated[int, Field(ge=1), _WHOLE]
Count = Annotated[int, Field(ge=0), _WHOLE]
Ngram = Annotated[int, Field(ge=0, le=100), _WHOLE]
Ranks = Annotated[int, Field(ge=0, le=100_000), _WHOLE]
Seed = Annotated[int, Field(ge=0, lt=2**53), _WHOLE]
Text = Annotated[str, Field(min_length=1)]
Inputs = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Text], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "text"),  # what is wrong is told of one alone
    Field(description="One text, or several. A classifier of pairs reads two texts with a tab between them."),
]
AttachmentName = Annotated[
    str | None,
    Field(max_length=LONGEST_NAME, description="The name of an attachment; null (or left out) for the bare model."),
]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
NewName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_NAME,
        pattern=r"^[^/\x00-\x1f\x7f\ufffd]+$",
        description="Printable text without '/'.",
    ),
]


class Strict(BaseModel):
    """A request: unknown fields are mistakes, and a number is no text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ClassifyRequest(Strict):
    """Texts to give labels to."""

    attachment: AttachmentName = None
    inputs: Inputs

    model_config = ConfigDict(json_schema_extra={"examples": [{"attachment": "sentiment", "inputs": ["a fine film"]}]})


class Sampling(Strict):
    """Draw tokens instead of searching for the most probable text. The same seed draws the same text."""

    temperature: float = Field(1.0, gt=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: Ranks = Field(0, description="0 for all tokens.")
    seed: Seed = Field(0, description="Of the first input; the next ones have the next numbers.")


class GenerateRequest(Strict):
    """Texts to answer with texts. What is left out is as the attachment's run had it."""

    attachment: AttachmentName = None
    inputs: Inputs
    max_new_tokens: Positive | None = Field(None, description="Cut to what the model has room for.")
    min_new_tokens: Count | None = Field(None, description="Cut to max_new_tokens.")
    num_beams: Positive | None = None
    length_penalty: float | None = Field(None, ge=-10, le=10, description="Of beams only.")
    no_repeat_ngram_size: Ngram | None = None
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    sampling: Sampling | None = Field(None, description="Left out: nothing is drawn.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"attachment": "summary", "inputs": ["A long article."], "max_new_tokens": 60, "num_beams": 4}]
        }
    )

    def changes(self) -> dict[str, Any]:
        """Return what is asked of ``generate``, by transformers' names."""
        names = ("max_new_tokens", "min_new_tokens", "num_beams", "length_penalty", "no_repeat_ngram_size")
        found = {name: getattr(self, name) for name in (*names, "repetition_penalty")}
        if self.sampling is not None:
            found |= {name: getattr(self.sampling, name) for name in ("temperature", "top_p", "top_k")}
            found["num_beams"] = self.num_beams or 1
        return {name: value for name, value in found.items() if value is not None}


class EmbedRequest(Strict):
    """Texts to turn into vectors."""

    attachment: AttachmentName = None
    inputs: Inputs
    pooling: Literal["mean", "last"] = Field("mean", description="The mean over the tokens, or the last token.")
    normalize: bool = Field(False, description="Divide by the Euclidean length.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"attachment": "sentiment", "inputs": "a fine film", "normalize": True}]}
    )


class LoadRequest(Strict):
    """A folder to load."""

    path: Annotated[
        str, Field(min_length=1, description="A run's directory or a saved attachment, in the allowed folder.")
    ]

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "runs/second"}]})


class Label(BaseModel):
    """A text's label."""

    label: str
    probability: float
    probabilities: dict[str, float] = Field(description="Of every label.")


class ClassifyAnswer(BaseModel):
    """The labels, in the order of the inputs."""

    attachment: str | None
    results: list[Label]


class Written(BaseModel):
    """A text that was written."""

    text: str


class GenerateAnswer(BaseModel):
    """The texts, in the order of the inputs."""

    attachment: str | None
    results: list[Written]


class EmbedAnswer(BaseModel):
    """The vectors, in the order of the inputs."""

    attachment: str | None
    dimensions: int
    results: list[list[float]]


class AttachmentAnswer(BaseModel):
    """What is served under a name."""

    name: str
    actions: list[str] = Field(description="What can be asked of it: classify, generate, embed.")
    labels: list[str] = Field(description="Of a classifier, in the order of their numbers.")
    task: str | None
    method: str
    parameters: int = Field(description="Trained values.")
    sha256: str | None = Field(description="Of its file of tensors.")


class AttachmentsAnswer(BaseModel):
    """Everything that is served."""

    attachments: list[AttachmentAnswer]
    bare: list[str] = Field(description="What can be asked of the bare model.")
    can_load: bool = Field(description="Whether attachments can be loaded and unloaded.")


class Health(BaseModel):
    """How the server is."""

    live: bool = Field(description="The process answers.")
    ready: bool = Field(description="Requests are taken.")
    attachments: int
    waiting: int = Field(description="Texts that wait.")


class Fault(BaseModel):
    """One thing that is wrong in a request."""

    where: str = Field(description="The field.")
    what: str


class Problem(BaseModel):
    """Why a request was not answered, as RFC 9457 has it."""

    type: str = Field("about:blank", description="What follows says it all.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What was found, and what would work.")
    faults: list[Fault] = []

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no attachment 'sentimnt' here. Did you mean 'sentiment'? There is 'sentiment'.",
                    "faults": [],
                }
            ]
        }
    )
