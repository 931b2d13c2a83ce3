"""Every result has the stamp of the bytes it is of."""

from __future__ import annotations

import os
from dataclasses import replace

from rbc_engine.runs.stamps import ReadStamps
from rbc_engine.types.frames import Decoded, FieldRef, FileStamp, SlideRef

PLANNED, READ = FileStamp(1, 2), FileStamp(3, 4)


def test_an_image_has_the_stamp_with_which_it_was_read(tmp_path, make_result):
    stamps = ReadStamps()
    refs = [FieldRef(slide="s", field=name, path=tmp_path / name) for name in ("a", "b")]
    source = [
        Decoded(ref=refs[0], error="damaged", stamp=READ),
        Decoded(ref=refs[1], error="missing"),
    ]
    assert list(stamps.noted(source)) == source
    for ref, stamp in zip(refs, (READ, PLANNED), strict=True):
        result = make_result(field=ref.field)
        stamped = stamps.stamped(result, ref, planned=PLANNED)
        assert (stamped.regions, stamped.stamp) == (result.regions, stamp)


def test_a_slide_that_changed_while_it_was_read_has_failed(tmp_path, make_result):
    path = tmp_path / "x.svs"
    path.write_bytes(b"slide")
    ref = SlideRef(slide="x.svs", field="x.svs", path=path)
    planned = FileStamp.of(path)
    stamps = ReadStamps()
    result = make_result(slide=ref.slide, field=ref.field)
    stamped = stamps.stamped(result, ref, planned=planned)
    assert (stamped.regions, stamped.stamp) == (result.regions, planned)
    os.utime(path, ns=(7, 7))
    failed = stamps.stamped(result, ref, planned=planned)
    assert failed.regions is None
    assert failed.error is not None
    assert failed.error.startswith("x.svs: the file was changed while it was read")
    failure = replace(result, regions=None, error="x.svs: damaged")
    assert stamps.stamped(failure, ref, planned=planned).error == "x.svs: damaged"
