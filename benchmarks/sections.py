"""The sections of the page, each from what was measured; a section of which nothing was measured is left out."""

from __future__ import annotations

from benchmarks import summary
from benchmarks.libraries import TITLES as LIBRARIES
from benchmarks.methods import ranked, title
from benchmarks.references import BARE, FLOOR, FULL, TITLES
from benchmarks.results import Results
from benchmarks.rounds import Spread, steady
from benchmarks.shapes import SHAPES
from benchmarks.summary import Record
from benchmarks.tables import NOTHING, count, mebibytes, spread, table
from benchmarks.targets import TARGETS, Target, gains

ANSWERS = {True: "reached", False: "**not reached**", None: "not measured"}


def targets(results: Results) -> str:
    def row(target: Target) -> list[str]:
        found = target.find(results)
        digits = 0 if target.unit == "ms" else 3
        measured = spread(found, digits) + (f" {target.unit}" if target.unit and found is not None else "")
        limit = f"{'≥' if target.least else '≤'} {target.limit:g} {target.unit}".strip()
        remark = f" ({target.remark})" if target.remark else ""
        return [target.measure + remark, limit, measured, ANSWERS[target.reached(results)]]

    return table(["measure", "target", "measured", ""], [row(one) for one in TARGETS])


def sized(record: Record) -> str:
    """Return a record's shape in words."""
    of = SHAPES[record["shape"]]
    sizes = {key: record["changes"].get(key, getattr(of, key)) for key in ("layers", "rows", "tokens", "dtype")}
    layers = f"{sizes['layers']} + {sizes['layers']}" if of.family == "bart" else f"{sizes['layers']}"
    tokens = f"{sizes['tokens']} source and {record['changes'].get('targets', of.targets)} target" * (
        of.family == "bart"
    )
    return (
        f"{of.title}: {layers} layers of {of.width}, {sizes['rows']} rows of {tokens or sizes['tokens']} tokens, "
        f"{sizes['dtype']}"
    )


def side_by_side(results: Results, part: str, *, inverse: bool = False, skip: tuple[str, ...] = ()) -> str:
    """Return a table for each shape of a part: methods down, libraries across, ratios to the reference."""
    texts = []
    for shape in dict.fromkeys(record["shape"] for record in results.records(part)):
        records = [one for one in results.records(part, shape=shape) if one["rounds"]]
        if not records:
            continue
        found = {one["library"]: summary.to_reference(one, results.clock) for one in records}
        names = ranked({name for one in found.values() for name in one} - set(skip))
        own = next((one for one in records if one["library"] == "unipetl"), records[0])
        extra = summary.optimizer(own, results.clock) if part == "train" else {}
        head = ["method", *(LIBRARIES[library] for library in found), "trained"]
        rows = []
        for name in names:
            trained = next((one["facts"][name]["trained"] for one in records if name in one["facts"]), None)
            ratios = [one.get(name) for one in found.values()]
            row = [title(name), *(spread(turned(one) if inverse else one) for one in ratios), count(trained)]
            rows.append(row + ([spread(extra.get(name), 1, 1e3)] if extra else []))
        text = f"### {SHAPES[shape].title}, {part}\n\n{sized(own)}. {absolute(own, results.clock)}\n\n"
        texts.append(text + table(head + (["AdamW's step, ms"] if extra else []), rows))
    return "\n\n".join(texts)


def turned(one: Spread | None) -> Spread | None:
    return Spread(1 / one.high, 1 / one.middle, 1 / one.low, one.count) if one else None


def absolute(record: Record, clock: str) -> str:
    """Say what the reference itself takes."""
    found = summary.seconds(record, clock)[record["reference"]]
    kept = summary.timings(record, clock)
    change = Spread.of([steady(one, record["reference"]) for one in kept]).middle - 1
    return (
        f"The {TITLES[record['reference']]} takes {spread(found, 0, 1e3)} ms in unipetl's process, and "
        f"changes by up to {change:.0%} within a round; {len(kept)} rounds."
    )


def memory(results: Results) -> str:
    texts = []
    for record in results.records("memory", library="unipetl"):
        wanted = {"shape": record["shape"], "changes": record["changes"]}
        records = {one["library"]: one for one in results.records("memory", **wanted) if "error" not in one}
        names = ranked({name for one in records.values() for name in one["facts"]})
        rows = []
        for name in names:
            row = [title(name)]
            for one in records.values():
                facts, full = one["facts"].get(name), one["facts"].get(FULL, {}).get("saved")
                if facts:
                    share = f" ({facts['saved'] / full:.2f})" if full else ""
                    row += [mebibytes(facts["saved"]) + share, mebibytes(facts["held"]), mebibytes(facts["peak"])]
                else:
                    row += [NOTHING] * 3
            rows.append(row)
        columns = [
            f"{LIBRARIES[library]}: {what}" for library in records for what in ("saved (to full)", "held", "peak")
        ]
        texts.append(f"### {SHAPES[record['shape']].title}\n\n{sized(record)}.\n\n" + table(["MiB", *columns], rows))
    return "\n\n".join(texts)


def milliseconds(results: Results, part: str, head: str, *, per: str = "") -> str:
    """Return a table of milliseconds, libraries across; with ``per``, and the ratio to the reference."""
    records = {one["library"]: one for one in results.records(part) if one["rounds"]}
    if not records:
        return ""
    times = {library: summary.seconds(one, results.clock) for library, one in records.items()}
    ratios = {library: summary.to_reference(one, results.clock) for library, one in records.items()}
    rows = []
    for name in ranked({name for one in times.values() for name in one} - {BARE}):
        row = [title(name)]
        for library in records:
            row.append(spread(times[library].get(name), 1, 1e3))
            if per:
                row.append(spread(ratios[library].get(name)))
        rows.append(row)
    columns = [f"{LIBRARIES[library]}{what}" for library in records for what in ((", ms", per) if per else (", ms",))]
    return table([head, *columns], rows)


def sizes(results: Results) -> str:
    records = {one["library"]: one["facts"] for one in results.records("storage") if one["facts"]}
    names = ranked({name for facts in records.values() for name in facts})
    rows = [
        [title(name), *(mebibytes(facts.get(name, {}).get("bytes")) for facts in records.values())] for name in names
    ]
    return table(["folder, MiB", *(LIBRARIES[library] for library in records)], rows) if rows else ""


def growth(results: Results) -> str:
    rows = []
    for record in results.records("growth"):
        if record["rounds"]:
            found = summary.to_reference(record, results.clock)
            changes = record["changes"]
            of = SHAPES[record["shape"]]
            values = [str(changes.get(key, getattr(of, key))) for key in ("layers", "rows", "tokens")]
            spreads = {name: spread(one) for name, one in found.items()}
            rows.append(
                [LIBRARIES[record["library"]], record["kind"], *values]
                + [spreads.get(name, NOTHING) for name in ("lora_qv", "houlsby_16", "mam_16", "mam_16_mlp")]
            )
    head = ["library", "", "layers", "rows", "tokens", "LoRA q,v", "Houlsby r=16", "MAM l=16 r=16", "the same, MLP 800"]
    return table(head, rows, left=2) if rows else ""


def compiling(results: Results) -> str:
    kinds = ("compile-eval", "compile-train")
    records = [one for one in results.records("compile") if one["rounds"]]
    if not records:
        return ""
    found = {library: [gains(results, kind, library) for kind in kinds] for library in LIBRARIES}
    found = {library: both for library, both in found.items() if any(both)}
    names = ranked({name for both in found.values() for one in both for name in one} - {BARE, FLOOR})
    rows = [[title(name), *(spread(one.get(name)) for both in found.values() for one in both)] for name in names]
    head = [f"{LIBRARIES[library]}, {what}" for library in found for what in ("eval", "train")]
    own = [
        f"{kind.removeprefix('compile-')} {spread(one)}"
        for kind in kinds
        if (one := own_gain(results, kind)) is not None
    ]
    said = f"The reference's own gain, eager seconds over compiled ones: {', '.join(own)}.\n\n"
    return said + table(["gain over the reference's", *head], rows)


def own_gain(results: Results, kind: str) -> Spread | None:
    record = results.record("compile", kind=kind, library="unipetl")
    return summary.own_gain(record, results.clock) if record else None


def problems(results: Results) -> str:
    """List what failed or was refused, once for each library and reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in results.found["records"]:
        everything = record.get("problems", {}) | ({"all": record["error"]} if "error" in record else {})
        for name, reason in everything.items():
            where = f"{record['part']} {record['shape']}".strip()
            found.setdefault((LIBRARIES[record["library"]], title(name), reason), []).append(where)
    rows = [
        [library, name, ", ".join(dict.fromkeys(where)), f"`{reason.replace('|', '/')}`"]
        for (library, name, reason), where in found.items()
    ]
    return table(["library", "method", "where", "reason"], rows, left=4) if rows else "Nothing."
