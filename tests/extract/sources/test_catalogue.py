from __future__ import annotations

from cm2.extract.sources.catalogue import published

MIMIC3 = ("mimic3_carevue", "mimic3_metavision", "mimic3_lab")
MIMIC4 = ("mimic4_icu", "mimic4_lab")
OTHER_FLUIDS = {51478, 51094, 51491, 50831}


def ids(sources: tuple[str, ...], preset: str) -> set[int]:
    return {item.itemid for item in published(preset).items_of(sources)}  # type: ignore[arg-type]


def test_the_reference_map_has_the_114_published_items() -> None:
    found = published("reference").items_of(MIMIC3)
    per_system = [sum(item.source == source for item in found) for source in MIMIC3]
    assert per_system == [70, 36, 8]
    assert len({item.itemid for item in found}) == 114


def test_no_urine_and_no_other_fluid_counts_as_blood_in_the_corrected_map() -> None:
    for sources in (MIMIC3, MIMIC4):
        assert ids(sources, "reference") >= OTHER_FLUIDS
        assert not ids(sources, "corrected") & OTHER_FLUIDS
        assert not [
            item
            for item in published("corrected").items_of(sources)
            if "urine" in item.label.lower() or "fluid" in item.label.lower()
        ]


def test_the_corrected_map_adds_the_recommended_items() -> None:
    added = ids(MIMIC3, "corrected") - ids(MIMIC3, "reference")
    assert added == {190, 223951, 224308, 227242}
    added = ids(MIMIC4, "corrected") - ids(MIMIC4, "reference")
    assert added == {223951, 224308, 227242, 52027, 52569}


def test_no_item_stands_twice() -> None:
    for preset in ("corrected", "reference"):
        found = published(preset).items_of((*MIMIC3, *MIMIC4))  # type: ignore[arg-type]
        keys = [(item.source, item.itemid) for item in found]
        assert len(keys) == len(set(keys))


def test_the_corrected_grid_has_59_columns() -> None:
    names = published("corrected").columns()
    assert len(names) == len(set(names)) == 59
    one_hot = [name for name in names if "->" in name and not name.startswith("mask->")]
    sizes = [
        sum(n.startswith(v.name + "->") for n in one_hot) for v in published("corrected").variables
    ]
    assert [size for size in sizes if size] == [2, 4, 6, 13, 5]
    assert sum(name.startswith("mask->") for name in names) == 17
    assert len(names) - len(one_hot) - 17 == 12
    assert len(published("reference").columns()) == 76


def test_every_level_can_be_charted_and_every_normal_value_is_plausible() -> None:
    for variable in published("corrected").variables:
        if variable.categorical:
            assert variable.normal in variable.levels
            assert set(variable.texts.values()) == set(variable.levels)
            assert variable.reference_normal in variable.reference_levels
        assert variable.low <= variable.valid_low <= variable.normal
        assert variable.normal <= variable.valid_high <= variable.high


def test_every_reference_spelling_has_a_level() -> None:
    for variable in published("corrected").variables:
        if variable.name.startswith("Glasgow"):
            assert {text.lower() for text in variable.reference_levels} <= set(variable.texts)
