"""What anyone can test a form or an architecture with: tiny models, random methods, laws, and two checks.

Everything here needs unipetl alone, but for ``unipetl.testing.strategies``, which needs hypothesis.
"""

from unipetl.errors import CheckError
from unipetl.testing.architectures import SMALL, check_architecture
from unipetl.testing.families import FAMILIES, Family, family
from unipetl.testing.forms import check_form
from unipetl.testing.models import batch, build, prompt, randomize

__all__ = [
    "FAMILIES",
    "SMALL",
    "CheckError",
    "Family",
    "batch",
    "build",
    "check_architecture",
    "check_form",
    "family",
    "prompt",
    "randomize",
]
