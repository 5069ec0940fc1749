"""From a method and a model to a plan: checked, printable, and nothing touched.

The second step of the only path through this library: method (data), plan, attach (the one mutation).
"""

from unipetl.planning.blueprint import Group, Placement, Plan
from unipetl.planning.make import model_from_config, plan, sites_of
from unipetl.planning.trained import is_task_head

__all__ = ["Group", "Placement", "Plan", "is_task_head", "model_from_config", "plan", "sites_of"]
