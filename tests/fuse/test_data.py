from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cm2.cache.cohort import Cohort, view
from cm2.errors import ConfigError, DataError
from cm2.fuse.config import FuseConfig
from cm2.fuse.data import load
from cm2.fuse.identity import NUMERICS_VERSION, differences, identify
from cm2.fuse.rows import FusionData


@pytest.fixture(scope="module")
def data(small_cache: Path) -> FusionData:
    return load(small_cache, identify(FuseConfig(), small_cache).config)


def test_rows_are_the_eligible_stays_with_a_modality(data: FusionData, small_cache: Path) -> None:
    stays = Cohort.open(small_cache).stays.to_pydict()
    expected = [i for i, ok in zip(stays["stay_id"], stays["in_ihm"], strict=True) if ok]
    assert data.columns["stay_id"] == expected
    assert data.whole.available.any(1).all()
    known = [y is not None for y, ok in zip(stays["y_ihm"], stays["in_ihm"], strict=True) if ok]
    assert len(data.rows("all")) == sum(known) < len(data.rows("all", labelled=False))


def test_values_masks_and_targets_belong_to_their_stay(data: FusionData, small_cache: Path) -> None:
    cohort = Cohort.open(small_cache)
    stays = cohort.stays.to_pydict()
    rows = np.array([17, 3, 40])
    batch = data.batch(rows)
    for position, row in enumerate(rows):
        place = stays["stay_id"].index(data.columns["stay_id"][row])
        for m, name in enumerate(("ehr", "cxr", "report")):
            part = view(small_cache, cohort, name)
            np.testing.assert_array_equal(batch.x[name][position], part.values[place])
            np.testing.assert_array_equal(batch.mask[name][position], part.mask[place])
            assert batch.available[position, m] == part.has[place]
        assert batch.y[position, 0] == stays["y_ihm"][place]
        assert batch.pattern_id[position] == sum(
            2**m for m in range(3) if batch.available[position, m]
        )


def test_noise_belongs_to_the_stay_and_not_to_the_batch(data: FusionData) -> None:
    shapes = {"dropout.head": (4,)}
    whole = data.batch(np.arange(10), shapes, seed=1, epoch=2).noise["dropout.head"]
    parts = list(data.batches(np.arange(10), 3, shapes, seed=1, epoch=2))
    assert torch.equal(torch.cat([part.noise["dropout.head"] for part in parts]), whole)
    other = data.batch(np.arange(10), shapes, seed=1, epoch=3).noise["dropout.head"]
    assert (other != whole).all()


def test_modalities_keep_the_order_of_the_configuration(small_cache: Path) -> None:
    config = identify(FuseConfig(modalities=("report", "ehr")), small_cache).config
    data = load(small_cache, config)
    assert [spec.name for spec in data.specs] == ["report", "ehr"]
    assert data.patterns(data.rows("all"))[0] in ("report+ehr", "report", "ehr")


def test_all_modalities_are_taken_in_a_fixed_order_when_none_is_named(small_cache: Path) -> None:
    names = identify(FuseConfig(), small_cache).config.modalities
    assert [name.partition("@")[0] for name in names] == ["ehr", "cxr", "report"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"task": "ihmm"}, "Did you mean 'ihm'"),
        ({"modalities": ("ehr", "cxrr")}, "Did you mean 'cxr'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    small_cache: Path, options: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        identify(FuseConfig.of(options), small_cache)


def test_an_unknown_space_or_cohort_names_the_remedy(small_cache: Path) -> None:
    with pytest.raises(DataError, match="extract"):
        identify(FuseConfig(modalities=("ehr@000000000000",)), small_cache)
    with pytest.raises(DataError, match="extract"):
        identify(FuseConfig(cohort="other"), small_cache)


def test_the_identity_depends_on_configuration_and_data_and_not_on_the_place(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    caches = [make_cache(tmp_path / name, 40, ("ehr",)) for name in ("a", "b")]
    other = make_cache(tmp_path / "c", 40, ("ehr",), offset=1e-3)
    ids = [identify(FuseConfig(), cache).digest for cache in caches]
    assert ids[0] == ids[1]
    assert identify(FuseConfig(seed=1), caches[0]).digest != ids[0]
    assert identify(FuseConfig(), other).digest != ids[0]
    assert identify(FuseConfig(), caches[0]).record["numerics"] == NUMERICS_VERSION
    assert str(tmp_path) not in str(identify(FuseConfig(), caches[0]).record)


def test_differences_name_both_values() -> None:
    ours = {"config": {"K": 3, "lr": 0.1}, "cohort": "x"}
    theirs = {"config": {"K": 2, "lr": 0.1}, "cohort": "x", "old": 1}
    assert differences(ours, theirs) == ["config.K: 2 -> 3", "old: 1 -> absent"]


def test_a_required_modality_chooses_the_rows_and_is_not_read(small_cache: Path) -> None:
    both = FuseConfig(modalities=("ehr", "cxr"), rows="matched")
    alone = FuseConfig(modalities=("ehr",), require=("cxr",))
    plain = FuseConfig(modalities=("ehr",))
    richer, read, all_ = (load(small_cache, config) for config in (both, alone, plain))
    assert read.columns["stay_id"] == richer.columns["stay_id"]
    assert len(read.columns["stay_id"]) < len(all_.columns["stay_id"])
    assert [spec.name for spec in read.specs] == ["ehr"]


def test_a_required_modality_is_part_of_what_a_run_is(small_cache: Path) -> None:
    plain = identify(FuseConfig(modalities=("ehr",)), small_cache)
    found = identify(FuseConfig(modalities=("ehr",), require=("cxr",)), small_cache)
    assert found.digest != plain.digest
    assert found.config.require[0].startswith("cxr@")
    assert set(found.record["modalities"]) == {"ehr", "cxr"}
    assert set(found.spaces) == {"ehr"}  # what its vectors are is told of what is read


@pytest.mark.parametrize(
    ("modalities", "require"), [((), ("cxr",)), (("ehr",), ("ehr",)), (("ehr",), ("cxr", "cxr"))]
)
def test_what_is_required_lies_beside_what_is_read(
    modalities: tuple[str, ...], require: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="require"):
        FuseConfig.of({"modalities": modalities, "require": require})
