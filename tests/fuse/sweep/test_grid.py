"""From lines of a grid to settings."""

from __future__ import annotations

import itertools

import pytest

from cm2.errors import ConfigError
from cm2.fuse.sweep.axis import parse
from cm2.fuse.sweep.grid import expand, sample
from cm2.fuse.sweep.spec import sweep_spec


def lines(*texts: str) -> list:  # type: ignore[type-arg]
    return [parse(text) for text in texts]


def test_a_grid_is_every_combination_once() -> None:
    found = expand({}, lines("copula=frank,gumbel", "K=1:3", "lambda_cop=1e-4..1e-2/3"))
    wanted = itertools.product(("frank", "gumbel"), (1, 2, 3), (1e-4, 1e-3, 1e-2))
    assert [(s.config.copula, s.config.K, s.config.lambda_cop) for s in found.settings] == [*wanted]
    assert (found.repeated, sum(found.refused.values())) == (0, 0)


def test_what_is_the_same_training_is_one_setting() -> None:
    found = expand({}, lines("copula=frank,independence", "lambda_cop=1e-4..1e-1/4"))
    assert len(found.settings) == 5
    assert found.repeated == 3
    (alone,) = [s for s in found.settings if s.config.copula == "independence"]
    assert alone.values == {"copula": "independence", "lambda_cop": None}
    assert alone.label == "copula=independence"


def test_what_cannot_be_meant_is_counted_with_its_reason() -> None:
    found = expand({}, lines("coupling=kendall,rosenblatt", "K=1:3"))
    assert len(found.settings) == 4
    assert sorted(found.refused.values()) == [1, 1]
    assert all("kendall" in reason for reason in found.refused)


def test_a_value_that_its_option_cannot_take_is_an_error_and_no_combination() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'frank'"):
        expand({}, lines("copula=franc,gumbel"))
    with pytest.raises(ConfigError, match="K"):
        expand({}, lines("K=0:3"))
    with pytest.raises(ConfigError, match="Unknown option 'lamda_cop'"):
        expand({"lamda_cop": 1}, lines("K=1:2"))


def test_a_conditional_line_counts_only_where_its_condition_holds() -> None:
    found = expand(
        {"K": 2}, lines("K=1:3 if copula=frank", "copula=frank,gumbel", "lr=1e-3,1e-2 if K=3")
    )
    told = [(s.config.copula, s.config.K, s.config.lr) for s in found.settings]
    assert sorted(told) == [
        ("frank", 1, 3e-4),
        ("frank", 2, 3e-4),
        ("frank", 3, 1e-3),
        ("frank", 3, 1e-2),
        ("gumbel", 2, 3e-4),
    ]


def test_one_option_may_have_a_line_for_each_condition() -> None:
    found = expand(
        {}, lines("copula=frank,gumbel", "K=1:4 if copula=frank", "K=1:2 if copula=gumbel")
    )
    assert sorted((s.config.copula, s.config.K) for s in found.settings) == [
        *(("frank", k) for k in range(1, 5)),
        *(("gumbel", k) for k in range(1, 3)),
    ]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("K=1:2 if lr=1e-3", "lr=1e-3,1e-2 if K=1"), "circle"),
        (("K=1:2", "K=3,4"), "twice"),
        (("lr=1e-4..1e-2",), "say how many"),
        (("coupling=kendall", "K=2,3"), "No combination"),
    ],
)
def test_grids_that_cannot_be_meant_are_refused(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        expand({}, lines(*texts))


def test_presets_and_dotted_names_are_options_like_others() -> None:
    found = expand({}, lines("preset=corrected,paper"))
    assert [s.config.optimizer for s in found.settings] == ["adamw", "adam"]
    assert [s.label for s in found.settings] == ["preset=corrected", "preset=paper"]
    found = expand({"preset": "reference"}, lines("published.two_tokens=true,false"))
    assert [s.config.published.two_tokens for s in found.settings] == [True, False]


def test_random_settings_differ_and_the_first_do_not_depend_on_how_many() -> None:
    grid = lines("lr=1e-4..1e-2", "K=1:6", "copula=frank,independence")
    few, many = sample({}, grid, 5, 0), sample({}, grid, 40, 0)
    assert [s.label for s in many.settings[:5]] == [s.label for s in few.settings]
    assert len({s.label for s in many.settings}) == 40
    rates = [s.config.lr for s in many.settings]
    assert 1e-4 <= min(rates) < 3e-4
    assert 3e-3 < max(rates) <= 1e-2
    assert {s.config.K for s in many.settings} == {1, 2, 3, 4, 5, 6}
    assert [s.label for s in sample({}, grid, 5, 1).settings] != [s.label for s in few.settings]


def test_a_random_search_of_a_small_grid_ends_with_the_whole_grid() -> None:
    grid = lines("copula=frank,gumbel,independence", "lambda_cop=1e-3,1e-2")
    drawn = sample({}, grid, 100, 3)
    assert {s.label for s in drawn.settings} == {s.label for s in expand({}, grid).settings}
    assert {s.label for s in sample({}, grid, 2, 3).settings} < {s.label for s in drawn.settings}


def test_options_that_a_method_does_not_read_make_no_further_settings() -> None:
    found = expand({}, lines("model=cm2,concat", "lambda_cop=1e-3,1e-1", "lr=1e-4,1e-3"))
    assert len(found.settings) == 4 + 2
    assert found.repeated == 2
    assert [s.values["lambda_cop"] for s in found.settings if s.config.model == "concat"] == [
        None
    ] * 2


def test_an_option_of_a_method_may_be_varied() -> None:
    found = expand({"model": "mmtm"}, lines("model.gate_scale=1,2"))
    assert [dict(s.config.options)["gate_scale"] for s in found.settings] == [1.0, 2.0]
    assert [s.values for s in found.settings] == [
        {"model.gate_scale": 1.0},
        {"model.gate_scale": 2.0},
    ]


def test_a_seed_of_draws_is_refused_where_nothing_is_drawn() -> None:
    with pytest.raises(ConfigError, match="draw_seed is about search = 'random' and 'tpe'"):
        sweep_spec({}, ["K=1:3"], {"draw_seed": 5})
