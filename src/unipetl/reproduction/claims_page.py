"""What a small study says of the paper's claims: read from its runs, written as Markdown and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipetl.errors import RunError
from unipetl.experiment.directory import result_if_sound, write_json
from unipetl.experiment.divergence import MEANING
from unipetl.experiment.grid import ComparePlan, load_plan
from unipetl.experiment.table import Comparison, Table, read
from unipetl.files import write_text
from unipetl.markdown import code_cell, escape
from unipetl.reproduction.claims import CLAIMS
from unipetl.reproduction.rates import RATES, at_end, scores, seeds_of
from unipetl.reproduction.small import STUDY
from unipetl.reproduction.small_methods import SHARES
from unipetl.reproduction.small_tasks import TASKS, SmallTask
from unipetl.reproduction.verdicts import Difference, Judged, corrected, judge

WORDS = {
    "holds": "**holds**",
    "does not hold": "**does not hold**",
    "too close to call": "too close to call",
    "not tested": "not tested",
}
RULE = """\
Two methods are compared by their differences, seed by seed; the interval is the mean difference's 95 % interval by
Student's t. A claim holds if the interval lies above zero (above minus the margin, where the claim is that two
methods are equal), does not hold if it lies below, and is too close to call otherwise. A claim about every one of
several pairs holds if it holds for each, and does not hold if one of k pairs goes the other way with k p below
0.05. p after Holm's correction takes into account that many claims are tested; verdicts that survive it are marked
"sure". Intervals are about other seeds, on the same examples: another choice of examples or another model may give
another verdict."""


@dataclass(frozen=True)
class Findings:
    """A study's verdicts and scores.

    Attributes:
        path: the study's directory.
        comparison: the scores.
        plan: what ran.
        judged: a verdict per claim and task.
        steps: task -> optimisation steps of a run.
    """

    path: Path
    comparison: Comparison
    plan: ComparePlan
    judged: tuple[Judged, ...]
    steps: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON-ready data."""
        claims = [
            {"claim": one.key, "text": one.text, "source": one.source, "printed": one.printed, "caveat": one.caveat}
            for one in CLAIMS
        ]
        return {
            "name": self.plan.name,
            "seeds": list(self.plan.seeds),
            "tuning_seeds": {name: list(seeds_of(self.path, name)) for name in self.plan.tasks},
            "rule": " ".join(RULE.split()),
            "claims": claims,
            "verdicts": [one.to_dict() for one in self.judged],
            "comparison": self.comparison.to_dict(),
            "plan": self.plan.model_dump(mode="json", exclude_defaults=True),
        }

    def to_markdown(self) -> str:
        """Return the findings as a page."""
        parts = [f"# {escape(self.plan.name or 'Small study')}: the paper's claims", RULE, _summary(self.judged)]
        parts += ["## How it was done", _setting(self), "## Pair by pair", _pairs(self.judged)]
        parts += [_scores(self, table) for table in self.comparison.tables]
        if self.comparison.missing or self.comparison.failures:
            told = (f"{one.task}, {one.label}, seed {one.seed}: {one.message}" for one in self.comparison.failures)
            failed = [f"- {escape(text)}" for text in told]
            parts.append(f"Runs not made yet: {self.comparison.missing}.\n\n" + "\n".join(failed))
        return "\n\n".join(parts) + "\n"


def findings(directory: str | Path) -> Findings:
    """Read a small study, finished or not, and judge the claims; nothing is written.

    Raises:
        RunError: there is none.
        MissingPackageError: scipy is not installed.
    """
    folder = Path(directory) / STUDY
    if not (folder / "plan.yaml").is_file():
        what = (
            "learning rates are found, and the study has not begun" if (folder.parent / RATES).is_dir() else "no study"
        )
        raise RunError(f"{str(directory)!r}: there is no plan.yaml in {STUDY}/ ({what}).")
    plan = load_plan(folder / "plan.yaml", tasks=None)
    found = read(folder, plan)
    kinds = {task.name: task.kind for task in TASKS}
    judged = []
    for table in found.tables:
        scores = {row.label: row.scores for row in table.rows}
        claims = [claim for claim in CLAIMS if kinds.get(table.task) in claim.kinds]
        judged += judge(claims, table.task, scores)
    steps = {}
    for cell in plan.cells():
        result = result_if_sound(folder / cell.folder() / f"seed-{plan.seeds[0]}")
        if result is not None:
            steps[cell.task] = result.steps
    return Findings(Path(directory), found, plan, tuple(corrected(judged)), steps)


def write_claims(directory: str | Path) -> Findings:
    """Write ``claims.md`` and ``claims.json`` into a study's directory; return what they say."""
    found = findings(directory)
    write_json(found.path / "claims.json", found.to_dict())
    write_text(found.path / "claims.md", found.to_markdown())
    return found


def verdict_text(one: Judged) -> str:
    """Return a verdict with its numbers in one line."""
    word = one.verdict + (" (sure)" if one.sure else "")
    return f"{word}: {interval_text(one.difference)}" if one.difference else word


def interval_text(one: Difference) -> str:
    """Return a difference with its interval, such as ``+1.20 [+0.31, +2.09]``."""
    return f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def p_text(p: float) -> str:
    """Return a probability with three digits; one that would be 0.000 is said to be less than 0.001."""
    return "< 0.001" if p < 5e-4 else f"{p:.3f}"


def _summary(judged: tuple[Judged, ...]) -> str:
    tasks = list(dict.fromkeys(one.task for one in judged))
    lines = ["| claim | the paper | " + " | ".join(map(escape, tasks)) + " |", "|---|---|" + "---|" * len(tasks)]
    for claim in CLAIMS:
        cells = []
        for task in tasks:
            one = next((one for one in judged if one.claim.key == claim.key and one.task == task), None)
            cells.append("-" if one is None else _cell(one))
        note = f" ({claim.caveat})" if claim.caveat else ""
        lines.append(f"| {claim.text}{note} | {claim.source}: {claim.printed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(one: Judged) -> str:
    said = WORDS[one.verdict] + (", sure" if one.sure else "")
    if one.difference:
        said += f"; {interval_text(one.difference)}"
    if one.p is None or one.p_holm is None:
        return said
    return f"{said}; p {p_text(one.p)}, Holm {p_text(one.p_holm)}"


def _pairs(judged: tuple[Judged, ...]) -> str:
    lines = [
        "| claim | task | better, says the paper | than | difference | p | seeds |",
        "|---|---|---|---|---|---:|---:|",
    ]
    lines += [
        f"| {one.claim.key} | {escape(one.task)} | {escape(first)} | {escape(second)} | {interval_text(gap)} "
        f"| {p_text(gap.p)} | {gap.seeds} |"
        for one in judged
        for (first, second), gap in one.pairs
    ]
    return "\n".join(lines)


def _setting(found: Findings) -> str:
    lines = [
        "| task | for | training examples | steps | test examples | main and tiny budget |",
        "|---|---|---|---|---|---|",
    ]
    by_name: dict[str, SmallTask] = {task.name: task for task in TASKS}
    for name, part in found.plan.tasks.items():
        kind = by_name[name].kind
        shares = SHARES[kind]
        lines.append(
            f"| {escape(name)} | {kind} | {part.limit:,} | {found.steps.get(name, '-')} "
            f"| {part.evaluation_limit or 'all'} | {shares.main:.1%} and {shares.tiny:.1%} ({shares.source}) |"
        )
    seeds = ", ".join(map(str, found.plan.seeds))
    tuning = seeds_of(found.path, next(iter(found.plan.tasks)))
    how = f"by the mean over {'seed' if len(tuning) == 1 else 'seeds'} {', '.join(map(str, tuning))}" if tuning else ""
    lines += [
        "",
        f"Seeds {seeds}. Learning rates: the best of those in the tables, on development examples {how}; "
        "where it was at an end of what was tried, the next one beyond was tried too, three times at most. Sizes: "
        "solved so that the methods of a budget train about the same number of parameters, biases included. A prompt "
        "is never longer than ten vectors.",
    ]
    return "\n".join(lines)


def _scores(found: Findings, table: Table) -> str:
    rates = {
        cell.label: cell.recipe.training.get("learning_rate") for cell in found.plan.cells() if cell.task == table.task
    }
    searched = scores(found.path, table.task)
    tried = {label: ", ".join(f"{rate:g}" for rate in rates) for label, rates in searched.items()}
    ends = {label for label, rates in searched.items() if at_end(rates)}
    lines = [
        f"## {escape(table.task)}: {escape(table.metric)}",
        "",
        "| method | notation | parameters | share | rate | of | mean ± std | seeds |",
        "|---|---|---:|---:|---:|---|---:|---:|",
    ]
    for row in table.rows:
        rate = f"{rates.get(row.label, 0):g}" + (" (end)" if row.label in ends else "")
        cost = f"{row.parameters:,} | {row.share:.2%} | {rate} | {tried.get(row.label, '')}"
        lines.append(f"| {escape(row.label)} | {code_cell(row.method)} | {cost} | {row.score()} | {len(row.scores)} |")
    if any(row.diverged for row in table.rows):
        lines += ["", MEANING]
    return "\n".join(lines)
