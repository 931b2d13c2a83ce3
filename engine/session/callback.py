"""Call the user's function with the outcome of each frame in a thread, which survives its
errors.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rbc_engine.session.admission import Flow
from rbc_engine.session.session_options import OnEnded

__all__ = ["Delivery"]

_LOG = logging.getLogger("rbc_engine.session")


class Delivery:
    """Deliver in one thread, one call at a time. An exception of the function is counted and noted,
    and affects no other frame.
    """

    def __init__(self, flow: Flow, on_ended: OnEnded) -> None:
        self._flow = flow
        self._changed = flow.changed
        self._outbox = flow.outbox
        self._ledger = flow.ledger
        self._on_ended = on_ended
        self._calling_since_s: float | None = None
        self._reported = False
        self._given_up = False
        # A daemon: a function that never returns must not keep the program from exiting.
        self._thread = threading.Thread(target=self._deliver, name="rbc-callback", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Return whether this is the thread of the callback."""
        return threading.current_thread() is self._thread

    def mark(self) -> Callable[[], bool]:
        """Return a condition, under the lock: that everything ready now was delivered."""
        released = self._outbox.released
        return lambda: self._outbox.gone >= released and self._calling_since_s is None

    def trouble(self) -> str:
        """Describe a callback that holds everything up; '' if none is running. Under the lock."""
        if self._calling_since_s is None:
            return ""
        return (
            f"the callback has been running for {time.perf_counter() - self._calling_since_s:.3g} s"
        )

    def watch(self) -> None:
        """Note a callback that has been running for too long. Under the lock."""
        since, limit_s = self._calling_since_s, self._flow.options.callback_timeout_s
        if since is not None and not self._reported and time.perf_counter() - since > limit_s:
            self._reported = True
            self._flow.problem(f"a callback ran for more than {limit_s:.3g} s; results wait for it")

    def close(self, *, until_s: float) -> None:
        """Wait for the last call; then the thread ends, unless it still hangs in one at until_s."""
        if self.is_here:
            return
        self._thread.join(max(0.0, until_s - time.perf_counter()))
        if not self._thread.is_alive():
            return
        with self._changed:
            if self._given_up:
                return
            self._given_up = True
            self._flow.problem("a callback did not return before close; its thread is left behind")
            while len(self._outbox):
                self._outbox.take()
                self._ledger.unread += 1
            self._flow.notify()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._outbox) or self._flow.is_over)
                if not len(self._outbox):
                    return
                ended = self._outbox.take()
                self._calling_since_s, self._reported = time.perf_counter(), False
                self._flow.notify()
            error = None
            try:
                self._on_ended(ended)
            except (
                BaseException
            ) as raised:  # also SystemExit: this thread has other frames to deliver
                error = raised
            with self._changed:
                self._calling_since_s = None
                if error is not None:
                    self._ledger.callback_errors += 1
                    if self._ledger.problem(f"a callback raised {type(error).__name__}"):
                        _LOG.warning("a callback raised", exc_info=error)
                self._flow.notify()
