from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cm2.errors import ConfigError

from .conftest import Extract


@pytest.mark.parametrize("option", ["encoder", "weights"])
@pytest.mark.parametrize("kind", ["table", "events", "arrays"])
def test_an_option_that_would_be_ignored_is_refused_before_anything_is_written(
    folder: Path, run: Extract, option: str, kind: str
) -> None:
    (folder / "table.csv").write_text("stay_id,note\n100,fever\n101,pain\n")
    (folder / "events.csv").write_text("stay_id,hours,variable,value\n100,1,a,1\n")
    np.savez(folder / "arrays.npz", stay_id=np.array([100, 101]), values=np.ones((2, 3)))
    file = "arrays.npz" if kind == "arrays" else f"{kind}.csv"
    given = {"encoder": ["note=tinybert"], "weights": ["note=random:0"]}[option]
    if (option, kind) == ("encoder", "arrays"):  # what made them, for the record
        run(f"note={file}", encoder=given)
        return
    told = rf"--{option} {given[0]}: .*'text' or 'path', .* read as {kind}"
    with pytest.raises(ConfigError, match=told):
        run(f"note={file}", **{option: given})
    assert not (folder / "cache").exists()


def test_options_of_the_modalities_that_are_encoded_pass_beside_others(
    folder: Path, run: Extract
) -> None:
    (folder / "n.csv").write_text("stay_id,text\n100,fever\n101,pain\n")
    (folder / "t.csv").write_text("stay_id,x\n100,1\n101,2\n")
    result = run("note=n.csv", "lab=t.csv", encoder=["note=tinybert"], weights=["note=random:0"])
    assert [m.stays for m in result.modalities] == [2, 2]


@pytest.mark.parametrize("kind", ["table", "events"])
def test_an_encoder_of_the_toml_table_that_would_be_ignored_is_refused_too(
    folder: Path, run: Extract, kind: str
) -> None:
    (folder / "table.csv").write_text("stay_id,note\n100,fever\n101,pain\n")
    (folder / "events.csv").write_text("stay_id,hours,variable,value\n100,1,a,1\n")
    toml = folder / "own.toml"
    toml.write_text(f'[modality.note]\nfile = "{kind}.csv"\nencoder = "tinybert"\n')
    with pytest.raises(ConfigError, match=rf"the key encoder note=tinybert: .* read as {kind}"):
        run("note", config=toml)
    assert not (folder / "cache").exists()


def test_the_toml_table_names_an_encoder_or_a_folder_of_weights_that_counts_from_it(
    folder: Path, run: Extract
) -> None:
    (folder / "n.csv").write_text("stay_id,text\n100,fever\n101,pain\n")
    toml = folder / "own.toml"
    toml.write_text('[modality.note]\nfile = "n.csv"\nencoder = "tinybert"\n')
    assert run("note", config=toml, weights=["random:0"]).modalities[0].stays == 2
    (folder / "bert").mkdir()
    toml.write_text('[modality.note]\nfile = "n.csv"\nencoder = "bert"\n')
    with pytest.raises(ConfigError, match=re.escape(f"{folder / 'bert'}")):
        run("note", config=toml)
