"""Sessions in any order of calls: whatever happens, the books balance at every moment, and every
frame ends once.
"""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import SessionClosedError
from rbc_engine.session.session_options import ON_FULL, ORDERS

GOOD = np.zeros((40, 40, 3), np.uint8)
FRAMES = {"good": GOOD, "fail": GOOD, "kill": GOOD, "bad": np.zeros((40, 40), np.float32)}


class Hook:
    """Lanes that fail by the name of the field, and wait while the gate is shut."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch):
        if not self.gate.wait(20):
            raise TimeoutError
        for decoded in batch:
            if decoded.ref.field.startswith("fail"):
                raise ValueError("fail")
            if decoded.ref.field.startswith("kill"):
                raise SystemExit


HOOK = Hook()


@pytest.fixture(scope="module", autouse=True)
def engine():
    with stub_engine(lanes=2, lane_frames=3, batch_frames=3, regions=1, hook=HOOK) as opened:
        SessionMachine.engine = opened
        yield


class SessionMachine(RuleBasedStateMachine):
    engine = None
    session = None

    @initialize(
        on_full=st.sampled_from(ON_FULL),
        order=st.sampled_from(ORDERS),
        in_flight=st.integers(1, 14),
        unread=st.integers(0, 10),
        callback=st.sampled_from([None, "fine", "raises"]),
        max_age_s=st.sampled_from([None, 0.0, 0.002]),
    )
    def open(self, on_full, order, in_flight, unread, callback, max_age_s):
        HOOK.gate.set()
        self.ends = []
        self.order = order
        self.lost = 0
        self.calls = 0
        self.raised = 0

        def on_ended(ended):
            self.ends.append(ended)
            if callback == "raises" and ended.number % 3 == 0:
                raise KeyError(ended.number)

        self.session = self.engine.session(
            on_full=on_full,
            order=order,
            max_in_flight=in_flight,
            max_batch=3,
            max_unread=in_flight + unread,
            submit_timeout_s=0.01,
            max_age_s=max_age_s,
            on_ended=on_ended if callback else None,
        )
        self.callback = callback

    @rule(
        kinds=st.lists(
            st.sampled_from(["good", "good", "good", "fail", "kill", "bad"]), max_size=8
        ),
        copy=st.booleans(),
    )
    def submit(self, kinds, copy):
        for kind in kinds:
            self.calls += 1
            try:
                self.session.submit(FRAMES[kind], field=f"{kind}-{self.calls}", copy=copy)
            except SessionClosedError:
                assert not self.session._flow.accepting
                self.raised += 1

    @rule(count=st.integers(2, 4))
    def submit_from_threads(self, count):
        def run(seed):
            rng = random.Random(seed)
            for _ in range(5):
                kind = rng.choice(list(FRAMES))
                try:
                    self.session.submit(FRAMES[kind], field=kind)
                except SessionClosedError:
                    with self.session._flow.changed:
                        self.raised += 1
                    return
                assert self.session.counts.add_up

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(count)]
        before = self.session.counts.submitted
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        self.calls += self.session.counts.submitted - before

    @rule()
    def shut(self):
        HOOK.gate.clear()

    @rule()
    def let_go(self):
        HOOK.gate.set()

    @rule(count=st.integers(0, 3))
    def lose(self, count):
        self.session.note_lost(count)
        self.lost += count

    @rule()
    def cancel(self):
        self.session.cancel()

    @rule()
    def finish(self):
        self.session.finish()

    @rule()
    def drain(self):
        if self.session.drain(timeout_s=0.02):
            assert self.session.counts.in_flight == 0

    @rule(drain=st.booleans())
    def close(self, drain):
        self.session.close(drain=drain, timeout_s=0.05)

    @precondition(lambda self: self.callback is None)
    @rule()
    def poll(self):
        self.ends += self.session.poll()

    @precondition(lambda self: self.callback is None)
    @rule()
    def read(self):
        ended = self.session.read(timeout_s=0.002)
        self.ends += [] if ended is None else [ended]

    @rule()
    def pause(self):
        time.sleep(0.003)

    @invariant()
    def books_balance(self):
        if self.session is None:
            return
        flow = self.session._flow
        with flow.changed:
            counts = flow.ledger.counts
            assert counts.add_up
            assert min(counts.waiting, counts.running, counts.in_flight) >= 0
            assert counts.in_flight == len(flow.open)
            assert 0 <= flow._places <= flow.limit
            assert flow.outbox.kept <= self.session.options.max_unread
            assert counts.submitted == self.calls + self.lost

    def teardown(self):
        if self.session is None:
            return
        HOOK.gate.set()
        self.session.close(timeout_s=10)
        if self.callback is None:
            self.ends += self.session.poll()
        counts = self.session.counts
        assert counts.add_up
        assert counts.in_flight == 0
        assert self.session.over
        numbers = [ended.number for ended in self.ends]
        assert len(set(numbers)) == len(numbers)
        assert len(numbers) + counts.unread + self.lost + self.raised == counts.submitted
        if self.order == "submitted":
            assert numbers == sorted(numbers)
        for ended in self.ends:
            assert bool(ended.reason) != ended.ok
            assert ended.ok or ended.cause
        if not counts.unread:
            for status in ("done", "rejected", "failed", "stale"):
                counted = sum(ended.status.value == status for ended in self.ends)
                assert counted + (self.raised if status == "rejected" else 0) == getattr(
                    counts, status
                )


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
