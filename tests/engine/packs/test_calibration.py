"""calibration.json, and what it lets a device do."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rbc_engine.devices.choose import open_device
from rbc_engine.devices.cpu import device as cpu_device
from rbc_engine.devices.cpu.device import host_precisions
from rbc_engine.engine import Engine
from rbc_engine.errors import DeviceError, PackError, UsageError
from rbc_engine.packs.calibration import accepts, parse_calibration
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack

HASHES = dict.fromkeys(("detector.onnx", "box_head.onnx", "classifier.onnx"), "a" * 64)
VERDICT = {
    "accepted": True,
    "device": "cpu: x",
    "fields": 3,
    "smear_groups": 2,
    "fp32": {"ap50": 0.9},
    "measured": {"ap50": 0.9},
    "flips": {"labels": 0.001},
}


def document(**more):
    network = {"sha256": "a" * 64, "method": "max", "error": {"max": 0.01}, "ranges": {"x": 1.0}}
    return {"schema": 1, "networks": dict.fromkeys(HASHES, network)} | more


def parse(value) -> object:
    return parse_calibration(json.dumps(value).encode(), sha256=HASHES)


def changed(place: str, value):
    made = json.loads(json.dumps(document(verdicts={"cpu:int8": VERDICT})))
    *path, last = place.split("/")
    at = made
    for key in path:
        at = at[key]
    at[last] = value
    return made


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("schema", 2, "schema"),
        ("networks/detector.onnx/ranges", {"x": 0.0}, "greater than 0"),
        ("networks/detector.onnx/ranges", {"x": 1e6}, "less than 65504"),
        ("networks/detector.onnx/ranges", {"x": "NaN"}, "ranges.x"),
        ("networks/detector.onnx/sha256", "b" * 64, "ranges of another detector.onnx"),
        ("networks/other.onnx", None, "networks"),
        ("verdicts/cpu:fp64", VERDICT, "verdicts"),
        ("verdicts/cpu:int8/accepted", False, "reasons exactly if"),
        ("verdicts/cpu:int8/reasons", ["too far"], "reasons exactly if"),
        ("surprise", 1, "surprise"),
        ("notes", {"command": "a\x1b[2Jb"}, "no control characters"),
        ("notes", {"a\u202eb": 1}, "no control characters"),
        ("notes", {"n": 10**400}, "notes.n"),
        ("notes", {"n": float("nan")}, "notes.n"),
        ("verdicts/cpu:int8/device", "cpu\n", "no control characters"),
        ("verdicts/cpu:int8/fields", -1, "fields"),
        ("verdicts/cpu:int8/measured", {"ap50": float("inf")}, "ap50"),
    ],
)
def test_what_is_wrong_is_named(place: str, value, says: str) -> None:
    parse(changed("notes", {}))
    with pytest.raises(PackError, match=says):
        parse(changed(place, value))


def test_no_json_is_refused() -> None:
    with pytest.raises(PackError, match=r"calibration\.json"):
        parse_calibration(b"\xff\x00nonsense", sha256=HASHES)


def test_quantised_precisions_need_a_verdict_and_others_only_none_against() -> None:
    bare = parse(document())
    for calibration in (None, bare):
        assert [accepts(calibration, "cpu", p) for p in ("fp32", "bf16", "fp16")] == [True] * 3
        assert [accepts(calibration, "cpu", p) for p in ("int8", "fp8")] == [False] * 2
    refused = {**VERDICT, "accepted": False, "reasons": ["ap50 falls"]}
    tested = parse(document(verdicts={"cpu:int8": VERDICT, "cpu:bf16": refused}))
    assert accepts(tested, "cpu", "int8")
    assert not accepts(tested, "cuda", "int8"), "a CPU's verdict is none on a GPU"
    assert not accepts(tested, "cpu", "bf16")


def without_verdicts(pack: Pack, **verdicts) -> Pack:
    calibration = pack.calibration.model_copy(update={"verdicts": verdicts})
    return dataclasses.replace(pack, calibration=calibration)


def test_auto_takes_the_fastest_that_is_accepted(pack: Pack) -> None:
    here = host_precisions()
    verdicts = pack.calibration.verdicts
    accepted = [p for p in here if p == "fp32" or verdicts[f"cpu:{p}"].accepted]
    with open_device("cpu", calibration=pack.calibration).device as device:
        assert device.precision == accepted[0]
    choice = open_device("cpu", calibration=None)
    with choice.device as device:
        floats = [p for p in here if p != "int8"]
        assert device.precision == floats[0]
    if "int8" in here:
        assert "precision int8 is not taken: the pack has no calibration.json" in choice.notes


def test_a_cpu_without_vnni_says_why_it_is_slower(pack: Pack, monkeypatch) -> None:
    monkeypatch.setattr(cpu_device, "_has_vnni", lambda: False)
    choice = open_device("cpu", calibration=pack.calibration)
    with choice.device as device:
        assert device.precision != "int8"
    assert "precision int8 is not taken: this CPU has no VNNI" in choice.notes


def test_what_is_not_accepted_can_be_asked_for_and_is_said(pack: Pack) -> None:
    if "int8" not in host_precisions():
        with pytest.raises(UsageError, match=r"auto, .*'int8'"):
            open_device("cpu", precision="int8")
        return
    bare = without_verdicts(pack)
    choice = open_device("cpu", precision="int8", calibration=bare.calibration)
    with choice.device as device:
        assert device.precision == "int8"
    (note,) = choice.doubts
    assert "int8 was asked for, and is not accepted" in note
    assert "no verdict on cpu:int8" in note


def test_a_pack_without_ranges_has_no_quantised_networks(pack: Pack) -> None:
    bare = dataclasses.replace(pack, calibration=None)
    assert network_of(bare, "detector.onnx", precision="bf16") == pack.read("detector.onnx")
    with pytest.raises(PackError, match=r"no calibration\.json, which precision int8 needs"):
        network_of(bare, "detector.onnx", precision="int8")


def test_every_lane_gets_the_same_bytes(pack: Pack) -> None:
    first = network_of(pack, "detector.onnx", precision="int8")
    assert network_of(pack, "detector.onnx", precision="int8") is first
    assert first != pack.read("detector.onnx")


def test_every_product_is_computed_in_int8(pack: Pack) -> None:
    if "int8" not in host_precisions():
        with pytest.raises(UsageError, match="'int8'"):
            Engine.open("chula12", device="cpu", precision="int8")
        return
    with Engine.open("chula12", device="cpu", precision="int8", lanes=1) as engine:
        engine.check_golden()
        computed = [
            (kind, precision)
            for compiled in engine.choice.device._compiled.values()
            for kind, precision in (
                (layer["layerType"].astype(str), layer["runtimePrecision"].astype(str))
                for layer in (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
            )
            if kind in ("Convolution", "FullyConnected", "MatMul")
        ]
    kept = sum(len(network.keep_float) for network in pack.calibration.networks.values())
    slow = [row for row in computed if row[1] not in ("i8", "u8")]
    assert len(computed) > 80
    assert len(slow) <= kept, slow


def test_a_calibration_that_refuses_everything_says_so(pack: Pack) -> None:
    from rbc_engine.devices import choose

    with pytest.raises(DeviceError, match="refuses every precision"):
        choose._decide("auto", pack.calibration, "cuda", ["fp8"])
