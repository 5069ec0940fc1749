"""The tasks: data, pretrained model, metric. A third party's task is a subclass of [Task][] and needs no registration.

Two are small, real and need no model hub: the pretrained models and the data of ``pronounce`` and ``sentiment`` come
out of packages of the Python package registry (see [unipetl.tasks.packages][]). Four are the paper's, with data and
models from the hub or from local files. Three are for a user's own files.
"""

from unipetl.errors import TaskError, unknown
from unipetl.tasks.causal_lm import CausalLm
from unipetl.tasks.csv_classification import CsvClassification
from unipetl.tasks.mnli import Mnli
from unipetl.tasks.pronounce import Pronounce
from unipetl.tasks.sentiment import Sentiment
from unipetl.tasks.seq2seq import Seq2Seq
from unipetl.tasks.sst2 import Sst2
from unipetl.tasks.task import Prepared, Task
from unipetl.tasks.wmt16_en_ro import Wmt16EnRo
from unipetl.tasks.xsum import XSum

TASKS: tuple[Task, ...] = (
    Pronounce(),
    Sentiment(),
    Sst2(),
    Mnli(),
    XSum(),
    Wmt16EnRo(),
    CsvClassification(),
    Seq2Seq(),
    CausalLm(),
)

__all__ = [
    "TASKS",
    "CausalLm",
    "CsvClassification",
    "Mnli",
    "Prepared",
    "Pronounce",
    "Sentiment",
    "Seq2Seq",
    "Sst2",
    "Task",
    "Wmt16EnRo",
    "XSum",
    "get_task",
]


def get_task(name: str) -> Task:
    """Return the built-in task called ``name``.

    Raises:
        TaskError: there is none; the message names the nearest.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise TaskError(unknown("task", name, (task.name for task in TASKS)))
