"""What is trained, and what is named as left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.fuse.config import MODELS, FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import identify
from cm2.fuse.reproduce.budget import space
from cm2.fuse.reproduce.expand import OF_CM2, Plan, Request, Room
from cm2.fuse.reproduce.run import NAMES, plan
from cm2.fuse.sweep.axis import parse

Asking = Callable[..., Request]


def line(room: Room, key: str) -> FuseConfig:
    return next(entry.tries[0] for entry in room.entries if entry.line.key == key)


def keys(room: Room) -> list[str]:
    return [entry.line.key for entry in room.entries]


def test_two_data_sets_stand_side_by_side(iii: Path, iv: Path, asking: Asking) -> None:
    found = plan("table2", asking(iii, iv))
    assert [(room.dataset, room.modalities) for room in found.rooms] == [
        ("mimic3", ("ehr", "note")),
        ("mimic4", ("ehr", "cxr")),
    ]
    assert all("readm" not in text for text in found.skipped)


def test_every_line_of_a_room_reads_the_same_stays(iv: Path, asking: Asking) -> None:
    for name in ("table2", "table3"):
        (room,) = plan(name, asking(iv)).rooms
        stays = []
        for entry in room.entries:
            if name == "table3" and entry.line.key == "alone:ehr":
                continue  # a stay without a series is no row of the series alone
            identity = identify(entry.tries[0], iv)
            stays.append(load(iv, identity.config).columns["stay_id"])
        assert all(ids == stays[0] for ids in stays)


def test_cm2_and_concat_and_one_modality_alone_are_always_there(iv: Path, asking: Asking) -> None:
    (room,) = plan("table4", asking(iv, methods=("cosine",))).rooms
    assert keys(room) == ["cosine", "alone:ehr", "concat", "copula"]
    assert list(room.baselines.values()) == [3, 1, 2]


def test_a_figure_of_the_copula_trains_no_line_without_one(iv: Path, asking: Asking) -> None:
    found = plan("figure2", asking(iv, methods=("gumbel", "concat", "cm2+copula=clayton")))
    (room,) = found.rooms
    assert keys(room) == ["gumbel", "cm2+copula=clayton"]
    assert {entry.tries[0].copula for entry in room.entries} == {"gumbel", "clayton"}
    assert any("concat is left out: it has no copula" in text for text in found.skipped)


def test_a_table_that_needs_what_the_cache_lacks_is_named_and_not_filled(
    iii: Path, iv: Path, asking: Asking
) -> None:
    with pytest.raises(ConfigError, match=r"lacks report: `cm2 extract --modality report"):
        plan("table7", asking(iv))
    found = plan("table6", asking(iii, iv))
    assert {room.dataset for room in found.rooms} == {"mimic4"}
    assert any("the paper has no such data" in text for text in found.skipped)
    with pytest.raises(ConfigError, match="no store of cxr by an encoder 'resnet'"):
        plan("table10", asking(iv))


def test_a_method_that_is_not_built_in_is_named(
    iv: Path, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cm2.fuse.reproduce import expand

    monkeypatch.setattr(expand, "MODELS", tuple(name for name in MODELS if name != "daft"))
    found = plan("table2", asking(iv))
    assert "daft" not in keys(found.rooms[0])
    assert any("DAFT is left out: there is no method 'daft'" in text for text in found.skipped)


def test_a_method_that_the_user_misspells_is_an_error_and_nothing_is_left_out(
    iv: Path, asking: Asking
) -> None:
    with pytest.raises(ConfigError, match=r"--methods drfuse2: .*Did you mean 'drfuse'"):
        plan("table2", asking(iv, methods=("concat", "drfuse2")))


@pytest.mark.parametrize("preset", ["paper", "reference"])
def test_options_of_cm2_go_to_cm2_alone(iv: Path, asking: Asking, preset: str) -> None:
    (room,) = plan("table3", asking(iv, options={"preset": preset, "K": 3, "copula_dim": 0})).rooms
    plain, own = line(room, "mmtm"), line(room, "cm2")
    assert own.copula == "gumbel"
    assert plain.batch_size == own.batch_size == 32
    assert plain.optimizer == own.optimizer == "adam"
    for name in OF_CM2:
        assert getattr(plain, name) == FuseConfig.model_fields[name].get_default(
            call_default_factory=True
        )


def test_the_recipe_of_the_paper_trains_drfuse_in_smaller_batches(iv: Path, asking: Asking) -> None:
    (room,) = plan("table3", asking(iv, options={"preset": "paper", "copula_dim": 0})).rooms
    sizes = {entry.line.key: entry.tries[0].batch_size for entry in room.entries}
    assert {key for key, size in sizes.items() if size != 32} == {"drfuse"}
    assert sizes["drfuse"] == 8


def test_a_line_that_cannot_be_meant_under_a_preset_is_named(iv: Path, asking: Asking) -> None:
    options = {"preset": "reference", "K": 3, "copula_dim": 0}
    found = plan("table4", asking(iv, options=options))
    assert any("KL is left out: " in text and "align must be" in text for text in found.skipped)


def test_every_method_has_the_same_tries(iv: Path, asking: Asking) -> None:
    tuned = (parse("lr=1e-3,1e-4"), parse("dropout=0,0.3,0.5"))
    (room,) = plan("table2", asking(iv, tune=tuned)).rooms
    for entry in room.entries:
        assert len(entry.tries) == 6
        assert {(one.lr, one.dropout) for one in entry.tries} == {
            (lr, dropout) for lr in (1e-3, 1e-4) for dropout in (0.0, 0.3, 0.5)
        }


@pytest.mark.parametrize("series", ["lstm", "transformer"])
def test_a_method_with_encoders_of_its_own_takes_the_one_of_the_table(
    iv: Path, asking: Asking, series: str
) -> None:
    (room,) = plan("table2", asking(iv, options={"series_encoder": series})).rooms
    assert line(room, "daft").series_encoder == series
    assert line(room, "drfuse").options.model_dump()["series"] == series


def methods(cache: Path, asking: Asking, *drops: str, **parts: Any) -> Plan:
    return plan("methods", asking(cache, modalities=("cxr", "ehr"), **parts), drops=drops)


def test_all_methods_of_the_registry_stand_in_one_room(iv: Path, asking: Asking) -> None:
    (room,) = methods(iv, asking).rooms
    trained = {entry.tries[0].model for entry in room.entries}
    assert trained == set(MODELS)
    assert {"alone:ehr", "alone:cxr"} <= set(keys(room))


def test_each_share_withheld_is_a_table_of_its_own(iv: Path, asking: Asking) -> None:
    found = methods(iv, asking, "ehr=0.3,0.7", "ehr=0.3:severity", methods=("concat", "single"))
    assert [line(room, "concat").drop for room in found.rooms] == [
        (),
        ("ehr=0.3",),
        ("ehr=0.7",),
        ("ehr=0.3:severity",),
    ]
    assert all(line(room, "alone:cxr").drop == () for room in found.rooms)
    assert all(line(room, "alone:cxr").beside == () for room in found.rooms)
    alone = line(found.rooms[1], "alone:ehr")
    assert (alone.drop, alone.beside) == (("ehr=0.3",), ("cxr",))
    titles = [room.setting.title for room in found.rooms]
    assert titles[3] == "30% of ehr withheld by severity"


def test_a_method_takes_options_of_its_own(iv: Path, asking: Asking) -> None:
    (room,) = methods(iv, asking, methods=("cm2+align=none+K=1", "concat")).rooms
    config = line(room, "cm2")
    chosen = next(e.tries[0] for e in room.entries if e.tries[0].align == "none")
    assert (chosen.K, chosen.align) == (1, "none")
    assert (config.K, config.align) == (2, "copula")


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("table33", {}, "Did you mean 'table3'"),
        ("table2", {"drops": ("cxr=0.5",)}, "belong to `methods`"),
        ("methods", {"drops": ("cxr=2",)}, "above 0 and at most 1"),
        ("methods", {"rows": ("all",)}, "Unknown kind of rows 'all'"),
    ],
)
def test_what_cannot_be_meant_is_said(
    iv: Path, asking: Asking, name: str, parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(name, asking(iv, modalities=("ehr", "cxr")), **parts)


def test_the_names_are_the_tables_and_figures_of_the_contract() -> None:
    assert {"table2", "table3", "table4", "table5", "table6", "table7"} < set(NAMES)
    assert {"table9", "table10", "table11", "methods"} < set(NAMES)
    assert {"figure2", "figure3", "figure4", "figure5"} < set(NAMES)


def test_a_preset_of_a_method_is_a_line_of_its_own(iv: Path, asking: Asking) -> None:
    (room,) = methods(
        iv, asking, methods=("medfuse", "medfuse:reference", "flexmoe:original")
    ).rooms
    plain, published, other = (line(room, key) for key in keys(room)[:3])
    assert plain.options.model_dump()["two_tokens"] is False
    assert published.options.model_dump()["two_tokens"] is True
    assert published.lr == 9.382e-5
    assert (published.epochs, other.epochs) == (1, 1)  # what is given wins over a preset
    assert other.options.model_dump()["tokens"] == 16
    assert room.entries[1].line.title == "MedFuse, preset reference"


def test_a_preset_that_reads_empty_inputs_is_left_out_where_the_stores_have_none(
    iv: Path, asking: Asking
) -> None:
    found = methods(iv, asking, methods=("concat", "mmtm:reference"))
    assert any("MMTM, preset reference is left out" in text for text in found.skipped)


def test_an_unknown_preset_is_named_as_left_out(iv: Path, asking: Asking) -> None:
    found = methods(iv, asking, methods=("concat", "mmtm:refrence"))
    assert any("Did you mean 'reference'" in text for text in found.skipped)


def test_the_budget_is_the_same_number_of_settings_for_every_method(
    iv: Path, asking: Asking
) -> None:
    (room,) = methods(iv, asking, tune=space((), 4), tries=4).rooms
    whole = [entry for entry in room.entries if entry.tries[0].options.candidates()]
    assert {entry.tries[0].model for entry in whole} == {"availability", "logistic", "boosting"}
    assert {len(entry.tries) for entry in whole} == {1}, "they choose among their own candidates"
    trained = [entry for entry in room.entries if entry not in whole]
    assert {len(entry.tries) for entry in trained} == {4}
    for entry in trained:
        assert len({(one.lr, one.weight_decay, one.dropout) for one in entry.tries}) == 4
    by_itself = methods(iv, asking).rooms[0]
    assert [e.tries[0] for e in room.entries] == [e.tries[0] for e in by_itself.entries]
    drawn = {
        key: [one.lr for one in entry.tries[1:]]
        for key, entry in zip(keys(room), room.entries, strict=True)
    }
    assert drawn["mmtm"] == drawn["concat"] == drawn["cm2"]
