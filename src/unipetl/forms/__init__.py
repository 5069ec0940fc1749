"""The functional forms. A third party's form is a subclass of [Form][] and needs no registration."""

from unipetl.forms.bottleneck import Bottleneck
from unipetl.forms.experts import ExpertsDelta, Visit, build_at, paper_parameters_at
from unipetl.forms.form import Delta, Experts, Features, Form, Heads, Shape, Tokens
from unipetl.forms.head_attention import HeadAttention, Mlp
from unipetl.forms.low_rank import LowRank
from unipetl.forms.prompt import Prompt
from unipetl.forms.rescale import Rescale

FORMS: tuple[type[Form], ...] = (Bottleneck, LowRank, HeadAttention, Prompt, Rescale)

__all__ = [
    "FORMS",
    "Bottleneck",
    "Delta",
    "Experts",
    "ExpertsDelta",
    "Features",
    "Form",
    "HeadAttention",
    "Heads",
    "LowRank",
    "Mlp",
    "Prompt",
    "Rescale",
    "Shape",
    "Tokens",
    "Visit",
    "build_at",
    "paper_parameters_at",
]
