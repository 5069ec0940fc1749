"""Whoever has a name, and who has none any more, when putting something in its place fails half-way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from unipetl.serving.engine import Served
from unipetl.serving.roster import Roster


class Models:
    """An engine and its batcher: what is on the model, and what the next refresh does."""

    def __init__(self, fault):
        self.keys, self.fault = {"a#0", "a#1"}, fault
        self.begun = asyncio.Event()

    async def alone(self, function):
        if function.func == self.refresh and self.fault == "cancelled":
            self.begun.set()
            await asyncio.Event().wait()
        return function()

    def refresh(self, opened, held):
        if self.fault == "does not fit":
            return
        raise ZeroDivisionError

    def attach(self, opened):
        self.keys.add("a#2")
        return Served("a", "a#2", opened.lane, None)

    def remove(self, served):
        self.keys.remove(served.key)


@pytest.mark.parametrize("fault", ["raised", "cancelled", "does not fit"])
def test_a_spare_that_was_not_refreshed_leaves_the_model(fault):
    async def story():
        models, lane = Models(fault), SimpleNamespace(reader=None)
        now, spare = Served("a", "a#0", lane, None), Served("a", "a#1", lane, None)
        roster = Roster(models, [now], models, lambda name: None)
        roster._spares["a"] = spare
        async with roster.using(now):  # so the new values would go into the spare
            putting = asyncio.create_task(roster.put("a", SimpleNamespace(lane=lane, reader=None)))
            if fault == "cancelled":
                await models.begun.wait()
                putting.cancel()
                models.fault = None
            found = (await asyncio.gather(putting, return_exceptions=True))[0]
            await asyncio.sleep(0.01)
            assert roster._spares == {}
            if fault == "does not fit":
                assert models.keys == {"a#0", "a#2"}
                assert roster.served["a"] is found
                return
            assert isinstance(found, ZeroDivisionError if fault == "raised" else asyncio.CancelledError)
            assert models.keys == {"a#0"}
            assert roster.served["a"] is now

    asyncio.run(story())
