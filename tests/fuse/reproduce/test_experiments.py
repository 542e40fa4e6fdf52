"""The paper as data: numbers that exist, lines that differ in one factor."""

from __future__ import annotations

import pytest

from cm2.fuse.config import FuseConfig
from cm2.fuse.reproduce.experiments import EXPERIMENTS
from cm2.fuse.reproduce.paper import Cell, numbers, printed

CELLS = [  # source, data set, rows, encoders, row, task, metric
    ("table2|mimic3|matched||cm2|ihm|auroc", (0.854, 0.820, 0.861)),
    ("table2|mimic4|matched||unified|readm|aupr", (0.450, 0.390, 0.513)),
    ("table3|mimic3|partial||drfuse|ihm|aupr", (0.474, 0.422, 0.531)),
    ("table3|mimic4|partial||daft|readm|auroc", (0.765, 0.747, 0.782)),
    ("table4|mimic4|matched||kl|ihm|aupr", (0.489, None, None)),
    ("table5|mimic4|partial||without-fusion|ihm|auroc", (0.860, None, None)),
    ("table5|mimic4|matched||without-fusion|ihm|auroc", (0.811, None, None)),
    ("table6|mimic4|matched||gaussian|readm|aupr", (0.458, None, None)),
    ("table7|mimic4|matched||cm2|readm|auroc", (0.730, 0.694, 0.764)),
    ("table9|mimic4|partial||lsmt|ihm|auroc", (0.854, 0.838, 0.870)),
    ("table10|mimic4|matched|lstm+vit|cm2|ihm|aupr", (0.490, 0.421, 0.563)),
    ("table10|mimic4|matched|transformer+resnet|drfuse|readm|aupr", (0.430, 0.370, 0.495)),
    ("table11|mimic4|matched||daft|ihm|auroc_p", (0.1122, None, None)),
]


@pytest.mark.parametrize(("cell", "expected"), CELLS)
def test_a_number_is_the_one_that_the_paper_prints(
    cell: str, expected: tuple[float, float | None, float | None]
) -> None:
    assert tuple(numbers()[Cell(*cell.split("|"))]) == expected


def test_every_printed_value_lies_in_its_interval() -> None:
    outside = [
        cell
        for cell, (value, low, high) in numbers().items()
        if low is not None and high is not None and not low <= value <= high
    ]
    assert outside == []


def test_every_line_that_is_not_ours_has_a_number_in_the_paper() -> None:
    lacking = []
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings if experiment.sources else ():
            for dataset in setting.modalities:
                for line in setting.lines:
                    for task in experiment.tasks:
                        place = (dataset, setting.rows, setting.encoders, line.key, task)
                        for metric in ("auroc", "aupr"):
                            found = printed(experiment.sources, *place, metric)
                            if (found is None) is not line.added:
                                lacking.append((experiment.name, *place))
    assert lacking == []


def test_every_number_of_a_table_is_beside_a_line() -> None:
    reached = set()
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings:
            for dataset in setting.modalities:
                for line in setting.lines:
                    place = (dataset, setting.rows, setting.encoders, line.key)
                    reached |= {(source, *place) for source in experiment.sources}
    printed_rows = {tuple(cell[:5]) for cell in numbers() if cell.metric in ("auroc", "aupr")}
    assert printed_rows - reached == set()


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("table4", {"align"}),
        ("table5", {"align", "impute", "fusion"}),
        ("table6", {"copula"}),
        ("figure2", {"copula"}),
        ("figure5", {"K"}),
    ],
)
def test_a_variant_differs_from_cm2_in_one_factor(name: str, factors: set[str]) -> None:
    changed = set()
    for setting in EXPERIMENTS[name].settings:
        own = FuseConfig.of(next(line.options for line in setting.lines if line.cm2)).model_dump()
        for line in setting.lines:
            other = FuseConfig.of(line.options).model_dump()
            apart = {key for key in own if own[key] != other[key]}
            assert len(apart) == (0 if line.cm2 else 1), (line.title, apart)
            changed |= apart
    assert changed == factors


def test_every_setting_has_one_cm2_and_distinct_lines() -> None:
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings:
            assert sum(line.cm2 for line in setting.lines) == 1
            for names in zip(*((line.key, line.title) for line in setting.lines), strict=True):
                assert len(set(names)) == len(names)
