from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cm2.errors import ConfigError
from cm2.fuse.config import MODELS, FuseConfig
from cm2.fuse.presets import presets, resolve, weights
from cm2.fuse.published import Published

PRESETS = presets("cm2")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_set_of_options(name: str) -> None:
    config = FuseConfig.of({"preset": name})
    for field, value in PRESETS[name].items():
        found = getattr(config, field)
        assert (found.model_dump() if isinstance(found, Published) else found) == value


def test_the_default_preset_changes_nothing() -> None:
    assert FuseConfig.of({"preset": "corrected"}) == FuseConfig.of({}) == FuseConfig()


def test_given_options_win_at_every_level() -> None:
    given = {"preset": "reference", "K": "5", "published": {"raw_space": "false"}}
    config = FuseConfig.of(given)
    assert config.K == 5
    assert config.published == Published(
        **dict.fromkeys(Published.model_fields, True) | {"raw_space": False}
    )
    assert PRESETS["reference"]["published"]["raw_space"] is True
    assert given["preset"] == "reference"


def test_the_switches_are_recorded_and_the_name_is_not() -> None:
    by_name = FuseConfig.of({"preset": "paper"})
    by_hand = FuseConfig.of(resolve({"preset": "paper"}))
    assert by_name == by_hand
    assert "preset" not in by_name.model_dump()


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'reference'"):
        FuseConfig.of({"preset": "referense"})


def test_the_paper_preset_puts_the_weight_of_a_sum_on_the_mean() -> None:
    config = FuseConfig.of({"preset": "paper"})
    assert config.lambda_cop == pytest.approx(2.56e-4)
    assert weights(config).count("0.000256") == 1
    assert "lambda = 1e-06 on their sum" in weights(config)
    assert (config.impute, config.copula_dim, config.optimizer) == ("marginal", 0, "adam")


def test_every_published_defect_is_a_part_of_the_reference_preset_alone() -> None:
    assert all(PRESETS["reference"]["published"].values())
    for name in ("corrected", "paper"):
        assert FuseConfig.of({"preset": name}).published == Published()


def show(*arguments: str) -> tuple[dict[str, object], str]:
    program = "from cm2.cli import main; main()"
    call = [sys.executable, "-c", program, "fuse", *arguments, "--show-config"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout), done.stderr


def test_the_command_shows_what_was_resolved(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper"\nK = 4\n[published]\ntwo_tokens = true\n')
    shown, said = show("--config", str(file), "--lr", "0.01")
    expected = FuseConfig.of(
        {"preset": "paper", "K": 4, "lr": 0.01, "published": {"two_tokens": True}}
    )
    assert shown == expected.model_dump(mode="json")
    assert "1e-06 on their sum" in said


def test_the_option_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "reference"\n')
    shown, said = show("--config", str(file), "--preset", "corrected")
    assert shown == FuseConfig().model_dump(mode="json")
    assert "their sum" not in said


def test_a_rival_has_the_recipe_of_the_paper_and_presets_of_its_own() -> None:
    assert FuseConfig.of({"model": "late", "preset": "paper"}).optimizer == "adam"
    mmtm = FuseConfig.of({"model": "mmtm", "preset": "original"})
    assert mmtm.options.model_dump()["gate_scale"] == 2
    with pytest.raises(ConfigError, match="Unknown preset of late 'original'"):
        FuseConfig.of({"model": "late", "preset": "original"})


def test_the_paper_trains_drfuse_in_smaller_batches() -> None:
    drfuse, other = (FuseConfig.of({"model": m, "preset": "paper"}) for m in ("drfuse", "late"))
    assert (drfuse.batch_size, other.batch_size) == (8, 32)
    assert drfuse.lr == other.lr


def test_no_original_preset_has_a_weight_decay_that_its_publication_has_not() -> None:
    decays = {
        name: FuseConfig.of({"model": name, "preset": "original"}).weight_decay
        for name in ("medfuse", "drfuse", "interleaved")
    }
    assert set(decays.values()) == {0.0}


def test_an_option_of_the_method_wins_over_its_preset() -> None:
    given = {"model": "mmtm", "preset": "original", "options": {"gate_scale": "3"}}
    options = FuseConfig.of(given).options.model_dump()
    assert (options["gate_scale"], options["squeeze_act"]) == (3.0, "none")


def test_the_table_of_a_method_in_a_file_holds_its_name_and_options(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nname = "mmtm"\ngate_scale = 2\nsqueeze_act = "none"\n')
    shown, _ = show("--config", str(file), "--set", "model.squeeze_act=relu")
    assert shown["model"] == "mmtm"
    assert (
        shown["options"]
        == FuseConfig.of({"model": "mmtm", "options": {"gate_scale": 2}}).options.model_dump()
    )


def test_of_the_published_loops_that_of_mmtm_alone_trains_before_it_validates() -> None:
    published = [name for name in MODELS if "reference" in presets(name)]
    configs = [FuseConfig.of({"model": name, "preset": "reference"}) for name in published]
    assert len(configs) > 4
    late = [config.model for config in configs if not config.published.validate_first]
    assert late == ["mmtm"]


@pytest.mark.parametrize("model", ["mmtm", "daft"])
def test_where_the_published_code_feeds_an_empty_image_the_reference_does_too(model: str) -> None:
    published = FuseConfig.of({"model": model, "preset": "reference"})
    assert published.reads_blank
    assert not FuseConfig.of({"model": model}).reads_blank
    given = {"model": model, "preset": "reference", "options": {"missing": "skip"}}
    assert not FuseConfig.of(given).reads_blank
