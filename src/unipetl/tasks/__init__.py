"""The tasks: data, pretrained model, metric. A third party's task is a subclass of [Task][] and needs no registration.

Both built-in tasks are small, real and need no model hub: their pretrained models and their data come out of packages
of the Python package registry (see [unipetl.tasks.packages][]).
"""

from unipetl.errors import TaskError, unknown
from unipetl.tasks.pronounce import Pronounce
from unipetl.tasks.sentiment import Sentiment
from unipetl.tasks.task import Prepared, Task

TASKS: tuple[Task, ...] = (Pronounce(), Sentiment())

__all__ = ["TASKS", "Prepared", "Pronounce", "Sentiment", "Task", "get_task"]


def get_task(name: str) -> Task:
    """Return the built-in task called ``name``.

    Raises:
        TaskError: there is none; the message names the nearest.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise TaskError(unknown("task", name, (task.name for task in TASKS)))
