"""Whatever comes and whenever: every row gets its own answer, in batches that keep the limits."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tiny_runs import serving
from unipetl.errors import RefusedError
from unipetl.serving import Limits
from unipetl.serving.batching import Batcher, isolated

ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 3)),  # key, tokens, milliseconds to wait before
    min_size=1,
    max_size=40,
)
BATCHES = st.builds(
    Limits,
    max_batch_rows=st.integers(1, 8),
    max_batch_tokens=st.integers(1, 30),
    max_wait_ms=st.sampled_from([0, 1, 5]),
)


@dataclass
class Machine:
    """Answers with the row itself, and remembers its batches and its thread."""

    delay: float = 0.0

    def __post_init__(self):
        self.batches, self.threads = [], set()

    def __call__(self, items):
        self.threads.add(threading.current_thread().name)
        self.batches.append([(item.key, item.size, item.work) for item in items])
        if self.delay:
            threading.Event().wait(self.delay)
        return [("answer to", item.work) for item in items]


async def ask(batcher, rows):
    with batcher.room(len(rows)):
        futures = batcher.submit(rows)
    return await asyncio.gather(*futures)


async def all_asked(compute, limits, rows):
    """Ask for every row in a task of its own; return the answers in the rows' order."""
    batcher = Batcher(compute, limits)
    batcher.start()
    tasks = []
    for number, (key, size, pause) in enumerate(rows):
        tasks.append(asyncio.create_task(ask(batcher, [(key, size, number)])))
        if pause == 3:
            await asyncio.sleep(0.001)
    found = await asyncio.gather(*tasks)
    assert await batcher.close(1) == 0
    return [one for (one,) in found]


def faults(rows, limits, answers, batches):
    """What is wrong with answers and batches."""
    wrong = []
    if answers != [("answer to", number) for number in range(len(rows))]:
        wrong.append("lost or mixed up")
    if sorted(number for batch in batches for *_, number in batch) != list(range(len(rows))):
        wrong.append("computed not once each")
    for batch in batches:
        keys, sizes, numbers = zip(*batch, strict=True)
        if len(set(keys)) > 1:
            wrong.append("keys share a batch")
        if len(batch) > limits.max_batch_rows:
            wrong.append("too many rows")
        if len(batch) > 1 and max(sizes) * len(batch) > limits.max_batch_tokens:
            wrong.append("too many tokens")
        if list(numbers) != sorted(numbers):
            wrong.append("order within a batch")
    for key in {row[0] for row in rows}:
        order = [number for batch in batches for one, _, number in batch if one == key]
        if order != sorted(order):
            wrong.append("order within a key")
    return wrong


@given(rows=ROWS, limits=BATCHES)
def test_nothing_is_lost_or_mixed_up(rows, limits):
    machine = Machine()
    answers = asyncio.run(all_asked(machine, limits, rows))
    assert faults(rows, limits, answers, machine.batches) == []
    assert len(machine.threads) == 1
    assert threading.current_thread().name not in machine.threads


def test_planted_faults_are_noticed():
    rows, limits = [("a", 2, 0)] * 6, Limits(max_batch_rows=3, max_batch_tokens=6)
    for spoilt, fault in [
        (lambda answers: answers[::-1], "lost or mixed up"),
        (lambda answers: [answers[0]] * len(answers), "lost or mixed up"),
    ]:
        machine = Machine()
        answers = asyncio.run(all_asked(lambda items, m=machine, s=spoilt: s(m(items)), limits, rows))
        assert fault in faults(rows, limits, answers, machine.batches)
    good = [("answer to", number) for number in range(2)]
    for batches, fault in [
        ([[("a", 1, 0), ("b", 1, 1)]], "keys share a batch"),
        ([[("a", 4, 0), ("a", 1, 1)]], "too many tokens"),
        ([[("a", 1, 1), ("a", 1, 0)]], "order within a batch"),
        ([[("a", 1, 1)], [("a", 1, 0)]], "order within a key"),
        ([[("a", 1, 0)]], "computed not once each"),
    ]:
        assert fault in faults([("a", 1, 0), ("b", 1, 0)], limits, good, batches)


@serving
async def test_rows_that_come_together_are_computed_together():
    machine = Machine()
    batcher = Batcher(machine, Limits(max_wait_ms=50))
    batcher.start()
    await asyncio.gather(*(ask(batcher, [("a", 1, number)]) for number in range(10)))
    await batcher.close(1)
    assert [len(batch) for batch in machine.batches] == [10]


@serving
async def test_a_full_batch_does_not_wait():
    batcher = Batcher(Machine(), Limits(max_wait_ms=60_000, max_batch_rows=2))
    batcher.start()
    async with asyncio.timeout(5):
        await ask(batcher, [("a", 1, 0), ("a", 1, 1)])
    await batcher.close(1)


@serving
async def test_what_nobody_waits_for_costs_nothing():
    machine = Machine(delay=0.05)
    batcher = Batcher(machine, Limits(max_wait_ms=0))
    batcher.start()
    first = asyncio.create_task(ask(batcher, [("a", 1, "first")]))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(ask(batcher, [("a", 1, "second")]))
    third = asyncio.create_task(ask(batcher, [("a", 1, "third")]))
    await asyncio.sleep(0)
    second.cancel()
    assert await first == [("answer to", "first")]
    assert await third == [("answer to", "third")]
    assert [work for batch in machine.batches for *_, work in batch] == ["first", "third"]
    await batcher.close(1)


@serving
async def test_a_full_queue_refuses_and_says_when_to_come_back():
    batcher = Batcher(Machine(delay=0.05), Limits(max_queue=3, max_inputs=3, max_wait_ms=0))
    batcher.start()
    tasks = [asyncio.create_task(ask(batcher, [(number, 1, number)])) for number in range(4)]
    await asyncio.sleep(0.02)  # one is computed, three... the last was refused while the first still waited
    done = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [one for one in done if isinstance(one, RefusedError)]
    assert [(one.status, one.retry_after) for one in refused] == [(503, 1)]
    assert await ask(batcher, [("a", 1, "later")]) == [("answer to", "later")]
    await batcher.close(1)


@serving
async def test_places_are_kept_while_texts_are_read():
    batcher = Batcher(Machine(), Limits(max_queue=2, max_inputs=2))
    batcher.start()
    with batcher.room(2), pytest.raises(RefusedError), batcher.room(1):
        pass
    with batcher.room(2):
        pass
    await batcher.close(1)


def test_a_row_that_fails_takes_no_others_with_it(caplog):
    class Row:
        def __init__(self, work):
            self.work = work

    def compute(items):
        if any(item.work == 3 for item in items):
            raise ValueError("three")
        return [item.work for item in items]

    with caplog.at_level(logging.CRITICAL, logger="unipetl.serving"):
        found = isolated(compute, [Row(number) for number in range(7)])
    assert [str(one) for one in found] == ["0", "1", "2", "three", "4", "5", "6"]


@serving
async def test_closing_finishes_what_was_accepted_and_takes_nothing_new():
    machine = Machine(delay=0.02)
    batcher = Batcher(machine, Limits(max_wait_ms=60_000))
    batcher.start()
    tasks = [asyncio.create_task(ask(batcher, [(number, 1, number)])) for number in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close(10))
    await asyncio.sleep(0)
    with pytest.raises(RefusedError, match="stopping"):
        await ask(batcher, [("a", 1, "late")])
    assert await asyncio.gather(*tasks) == [[("answer to", number)] for number in range(5)]
    assert await closing == 0


@serving
async def test_what_cannot_be_finished_in_time_is_given_up_and_said():
    batcher = Batcher(Machine(delay=0.3), Limits(max_wait_ms=0))
    batcher.start()
    tasks = [asyncio.create_task(ask(batcher, [(number, 1, number)])) for number in range(3)]
    await asyncio.sleep(0.05)
    assert await batcher.close(0.05) == 3
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.status for one in done] == [503, 503, 503]
