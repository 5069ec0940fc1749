"""The directory of one run: which file holds what, and whether the run is new, unfinished or done.

recipe.yaml          the resolved recipe, with this run's seed alone
environment.json     versions, machine, threads, seed
plan.json            what the method changes where, and how many parameters each place has; absent for zero-shot
log.jsonl            one line per logged step
checkpoints/         while it trains; gone when it is done
adapter/             the trained attachment, as unipetl.save writes it
predictions.jsonl    one line per evaluation example
metrics.json         the result; written last, so its presence says that the run is done
.lock                while a process is at work here: which one
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unipetl.errors import RecipeError, RunError
from unipetl.experiment.recipe import Recipe, load_recipe
from unipetl.files import from_json, write_text
from unipetl.saved import holds_attachment


@dataclass(frozen=True)
class RunResult:
    """What a finished run found.

    Attributes:
        path: its directory.
        recipe: the hash that identifies its recipe.
        task, method, seed: what ran; the method in one line of notation.
        metric, score: the task's own metric and its value; ``greater_is_better`` says how to read it.
        metrics: every metric of the final evaluation.
        parameters, paper_parameters: trained values, by the true count and by the paper's rule.
        share: ``parameters`` as a fraction of ``base_parameters``.
        steps: optimisation steps.
        train_seconds: wall time of training, evaluations during it and earlier interrupted parts included.
        evaluate_seconds: wall time of the final evaluation.
        peak_memory_bytes: the highest use of memory, from loading the model to the end; on a CPU the whole process's.
    """

    path: Path
    recipe: str
    task: str
    method: str
    seed: int
    metric: str
    score: float
    greater_is_better: bool
    metrics: dict[str, float]
    parameters: int
    paper_parameters: int
    share: float
    base_parameters: int
    steps: int
    train_seconds: float
    evaluate_seconds: float
    peak_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data, without the path."""
        data = asdict(self)
        del data["path"]
        return data


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """What it ran on."""
        return self.path / "environment.json"

    @property
    def plan(self) -> Path:
        """What the method changes where, and how many parameters each place has; absent for zero-shot."""
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        """One line per logged step."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's checkpoints, while it trains."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained attachment."""
        return self.path / "adapter"

    @property
    def predictions(self) -> Path:
        """One line per evaluation example."""
        return self.path / "predictions.jsonl"

    @property
    def metrics(self) -> Path:
        """The result."""
        return self.path / "metrics.json"

    def read_recipe(self) -> tuple[Recipe, int]:
        """Return the recipe and the seed of this run.

        Raises:
            RunError: this is no run's directory, or its recipe is damaged.
        """
        if not self.recipe.is_file():
            raise RunError(f"{str(self.path)!r} is no run: {self._lack()}")
        try:
            recipe = load_recipe(self.recipe, tasks=None)
        except RecipeError as error:
            raise RunError(f"the recipe of the run is damaged: {error}") from error
        return recipe, recipe.seeds[0]

    def base_is_folder(self) -> bool | None:
        """Return whether the recipe's model was a folder when the run was made; None where that was not noted."""
        try:
            noted = from_json(self.environment.read_text(encoding="utf-8")).get("base_is_folder")
        except (OSError, ValueError, AttributeError):  # absent, damaged, or no object
            return None
        return noted if isinstance(noted, bool) else None

    def _lack(self) -> str:
        """Say why this is no run's directory."""
        if not self.path.exists():
            return "there is no such directory."
        if not self.path.is_dir():
            return f"it is a file; expected the directory that has a {self.recipe.name}."
        if (self.path / "plan.yaml").is_file():
            return "it is a comparison; its runs lie in runs/TASK/METHOD/seed-N there."
        if holds_attachment(self.path):
            return (
                "it is a saved attachment without its run, so its base and examples are not known. Name the run; or in "
                "Python unipetl.load it onto its base, which unipetl.folding.write_checkpoint makes a plain checkpoint."
            )
        return f"it has no {self.recipe.name}."

    def result(self) -> RunResult | None:
        """Return the result of a finished run; None if it is not finished.

        Raises:
            RunError: ``metrics.json`` is damaged.
        """
        if not self.metrics.is_file():
            return None
        try:
            data = from_json(self.metrics.read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise TypeError(f"expected an object, found {type(data).__name__}")
            return RunResult(path=self.path, **{one.name: _typed(data, one) for one in fields(RunResult)[1:]})
        except (ValueError, TypeError, OSError) as error:
            raise RunError(
                f"{str(self.metrics)!r} is damaged ({error}); delete it, and the run is finished again."
            ) from error

    def check(self, recipe: Recipe, seed: int) -> None:
        """See that the directory is this run's or can become it; nothing is written.

        Raises:
            RunError: it holds something else.
        """
        if self.recipe.is_file():
            found, found_seed = self.read_recipe()
            if found.hash() != recipe.hash() or found_seed != seed:
                what = _differences(found, found_seed, recipe, seed)
                raise RunError(
                    f"{str(self.path)!r} holds the run of another recipe ({what}). "
                    "Choose another directory, or remove that one."
                )
        elif self.path.is_dir() and any(not one.name.startswith(".") for one in self.path.iterdir()):
            raise RunError(f"{str(self.path)!r} is not empty and holds no run; choose another directory.")
        elif self.path.exists() and not self.path.is_dir():
            raise RunError(f"{str(self.path)!r} is a file; a run needs a directory.")

    def claim(self, recipe: Recipe, seed: int) -> None:
        """Make the directory this run's.

        Raises:
            RunError: it holds something else.
        """
        self.check(recipe, seed)
        write_text(self.recipe, Recipe(**{**recipe.resolved(), "seeds": [seed]}).to_yaml())

    def empty(self) -> None:
        """Remove what an earlier attempt left, but for the recipe."""
        for folder in (self.checkpoints, self.adapter):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics, self.log, self.predictions, self.environment, self.plan):
            file.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as JSON, atomically; numbers that JSON lacks become null."""
    write_text(path, json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one line of JSON per row, atomically."""
    write_text(path, "".join(json_line(row) for row in rows))


def json_line(row: Mapping[str, Any]) -> str:
    """Return ``row`` as one line of JSON."""
    return json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n"


def run_directories(path: Path) -> list[Path]:
    """Return ``path`` if it is a run, else the runs of an experiment's seeds in it.

    Raises:
        RunError: there is no run.
    """
    seeds = [one for one in path.glob("seed-*") if RunDirectory(one).recipe.is_file()] if path.is_dir() else []
    if seeds and not RunDirectory(path).recipe.is_file():
        return sorted(seeds, key=lambda one: (len(one.name), one.name))
    RunDirectory(path).read_recipe()
    return [path]


def result_if_sound(path: Path) -> RunResult | None:
    """Return the result of the run in a directory; None where it is not finished, or damaged.

    For whoever reads many runs and says elsewhere which of them are damaged.
    """
    try:
        return RunDirectory(path).result()
    except RunError:
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; a last line that was cut off, even inside a sign, is left out.

    So is what follows a line that is no object.
    """
    rows = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n"):  # texts may have other signs that end lines, which JSON leaves as they are
        try:
            row = from_json(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


def _typed(data: Any, field: Field[Any]) -> Any:
    """Return a result's value of the field's type; null is a number that JSON lacks."""
    if field.name not in data:
        raise TypeError(f"it has no {field.name!r}")
    value, kind = data[field.name], str(field.type).partition("[")[0]
    if kind == "float":
        return _number(field.name, value)
    kinds: dict[str, type] = {"str": str, "int": int, "bool": bool, "dict": dict}
    if not isinstance(value, kinds[kind]) or (kind == "int" and isinstance(value, bool)):
        raise TypeError(f"{field.name} is {value!r}, which is no {kind}")
    if isinstance(value, dict):
        return {key: _number(f"{field.name}.{key}", one) for key, one in value.items()}
    return value


def _number(name: str, value: object) -> int | float:
    """Return a number that JSON holds; null stands for one that it lacks."""
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, which is no float")
    return value


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data


def _differences(found: Recipe, found_seed: int, wanted: Recipe, wanted_seed: int) -> str:
    before, after = ({**one.resolved(), "seeds": s} for one, s in ((found, found_seed), (wanted, wanted_seed)))
    parts = [f"{key}: {before[key]!r} there, {after[key]!r} here" for key in before if before[key] != after[key]]
    return "; ".join(parts[:3]) or "they resolve differently"
