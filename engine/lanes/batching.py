"""Cut a source into batches, and settle them when their device is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

from rbc_engine.errors import DeviceError
from rbc_engine.types.frames import Decoded
from rbc_engine.types.results import FieldResult

__all__ = ["batches", "outcome"]


def batches(items: Iterable[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Yield lists of `size` items; the last may be shorter."""
    batch: list[Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def outcome(
    batch: Sequence[Decoded], future: Future[list[FieldResult]], error: DeviceError
) -> list[FieldResult]:
    """Return the results of a batch, or why it has none, once its device is gone."""
    try:
        return future.result()
    except DeviceError:
        return [
            FieldResult.failed(
                decoded, decoded.error or f"{decoded.ref.field or 'the image'}: {error}"
            )
            for decoded in batch
        ]
