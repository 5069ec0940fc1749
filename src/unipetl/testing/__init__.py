"""What anyone can test a form or an architecture with: tiny models, random methods, and two checks.

``check_form`` and ``check_architecture`` need nothing but unipetl; ``strategies`` needs hypothesis.
"""

from unipetl.testing.families import FAMILIES, Family, family
from unipetl.testing.models import batch, build, randomize

__all__ = ["FAMILIES", "Family", "batch", "build", "family", "randomize"]
