"""Tables of the open COVID-19 films, as `cm2 extract --config` reads them.

Each film is a stay. Tasks: `icu`, whether the patient went to intensive care, and `death`.

    python -m benchmarks.covid_cxr --data FOLDER --out TABLES
    cm2 extract --config TABLES/own.toml --modality cxr --level pixels --side 64 --cache C
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl


def main() -> None:
    """Write the tables and the TOML file that names them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = pl.read_csv(given.data / "metadata.csv", infer_schema_length=None)
    table = table.with_row_index("stay_id")
    yes_is_event = {"Y": 1, "N": 0}
    table.select(
        "stay_id",
        subject_id="patientid",
        y_icu=pl.col("went_icu").replace_strict(yes_is_event, default=None),
        y_death=pl.col("survival").replace_strict({"Y": 0, "N": 1}, default=None),
    ).write_csv(given.out / "stays.csv")
    table.select("stay_id", path="file").write_csv(given.out / "films.csv")
    noted = table.filter(pl.col("clinical_notes").is_not_null())
    noted.select("stay_id", text="clinical_notes").write_csv(given.out / "notes.csv")
    images = (given.data / "images").resolve()
    (given.out / "own.toml").write_text(
        'stays = "stays.csv"\ndataset_name = "covid_cxr"\n'
        f'[modality.cxr]\nfile = "films.csv"\nfolder = "{images}"\n'
        '[modality.note]\nfile = "notes.csv"\n'
    )
    print(f"{table.height} films, {noted.height} notes: {given.out / 'own.toml'}")


if __name__ == "__main__":
    main()
