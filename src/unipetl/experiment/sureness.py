"""How sure a run's score is, and whether two runs differ, from the predictions that they kept.

Nothing is computed again: ``predictions.jsonl`` has what every example scored, or its texts. See
[unipetl.metrics.significance][] for what the numbers mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unipetl.errors import RunError
from unipetl.experiment.directory import RunDirectory, RunResult, read_lines
from unipetl.metrics.significance import Interval, Paired, bleu_interval, mean_interval, paired_bleu, paired_means

#: Metrics that are the share of examples that are correct, in percent.
SHARES = ("accuracy", "exact_match")
#: Metrics of a whole corpus -> whether it is prepared as the paper prepares Romanian.
CORPUS = {"sacrebleu": False, "romanian_bleu": True}

Rows = list[dict[str, Any]]


def interval(run_dir: str | Path) -> Interval:
    """Return the score of a finished run on its task's metric with its 95 % bootstrap interval over examples.

    Raises:
        RunError: this is no finished run, or its metric has no interval.
        TaskError: it has fewer than two examples.
    """
    result, rows = _read(run_dir)
    if result.metric in CORPUS:
        return bleu_interval(_texts(rows, "predicted"), _texts(rows, "gold"), romanian=CORPUS[result.metric])
    return mean_interval(_scores(result, rows))


def paired(first: str | Path, second: str | Path) -> Paired:
    """Compare two finished runs on the same examples: the second's score minus the first's, and how likely by chance.

    Raises:
        RunError: these are no finished runs, they were judged on different examples, or the metric has no test.
        TaskError: there are fewer than two examples.
    """
    (before, old), (after, new) = _read(first), _read(second)
    if before.metric != after.metric:
        raise RunError(f"{str(first)!r} is judged by {before.metric} and {str(second)!r} by {after.metric}.")
    if [(row["input"], row["gold"]) for row in old] != [(row["input"], row["gold"]) for row in new]:
        raise RunError(
            f"{str(first)!r} and {str(second)!r} were not judged on the same examples ({len(old)} and {len(new)}): "
            "a paired test needs the same task, files, limits and tokenizer."
        )
    if before.metric in CORPUS:
        said = _texts(old, "predicted"), _texts(new, "predicted")
        return paired_bleu(said[0], said[1], _texts(old, "gold"), romanian=CORPUS[before.metric])
    return paired_means(_scores(before, old), _scores(after, new))


def _read(run_dir: str | Path) -> tuple[RunResult, Rows]:
    files = RunDirectory(Path(run_dir))
    result = files.result()
    if result is None:
        raise RunError(f"{str(run_dir)!r} is no finished run.")
    rows = read_lines(files.predictions)
    for name in ("input", "gold", "predicted"):
        if not all(name in row for row in rows):
            raise RunError(f"{str(files.predictions)!r} is damaged: not every line has {name!r}. Run its recipe anew.")
    return result, rows


def _scores(result: RunResult, rows: Rows) -> list[float]:
    if result.metric in SHARES:
        if not all("correct" in row for row in rows):
            raise RunError(f"{str(result.path)!r}: its predictions do not say which examples are correct.")
        return [100.0 * bool(row["correct"]) for row in rows]
    if not all(result.metric in row for row in rows):
        raise RunError(f"{str(result.path)!r}: its predictions do not say what each example adds to {result.metric}.")
    if result.metric == "perplexity":
        raise RunError(f"{str(result.path)!r}: perplexity is no mean over examples, so there is no interval for it.")
    scores = [row[result.metric] for row in rows]
    if not all(isinstance(one, (int, float)) for one in scores):
        raise RunError(f"{str(result.path)!r}: its predictions have values of {result.metric} that are no numbers.")
    return [float(one) for one in scores]


def _texts(rows: Rows, column: str) -> list[str]:
    return [str(row[column]) for row in rows]
