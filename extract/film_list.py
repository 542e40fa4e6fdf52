"""Which films must be downloaded: told from the tables alone, before any film is there."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ..cache import atomic
from ..errors import ConfigError
from .config import ExtractConfig
from .estimate_items import stays_of_call
from .modalities.cxr import linked_films
from .sources import open_source
from .sources.mimic_cxr import films, find_metadata

_COLUMNS = ("path", "dicom_id", "subject_id", "study_id")


@dataclass(frozen=True)
class FilmList:
    """What a list of films holds.

    Args:
        films: Films that the stays link.
        stays: Stays that link any.
        missing: Films that are not there yet.
        listed: Films of the whole release.
    """

    films: int
    stays: int
    missing: int
    listed: int

    def as_text(self) -> str:
        """One line."""
        return (
            f"{self.films:,} of {self.listed:,} films are linked by {self.stays:,} stays; "
            f"{self.missing:,} of them are not there yet"
        )


def write_film_list(config: ExtractConfig, file: Path) -> FilmList:
    """Write the films that an extraction with these options would read.

    Needs the tables of the stays and the metadata table of MIMIC-CXR-JPG, and no film.

    Args:
        config: Source, cohort and film rule.
        file: One path a line, relative to the folder of the metadata table, as `wget -i` with the
            base address of the release takes them; with the ending .csv also dicom_id, subject_id
            and study_id, under a header.

    Raises:
        ConfigError: The call is not about a release of MIMIC.
        DataError: The tables are missing.
        ResourceError: The file cannot be written.
    """
    if config.own_data or config.from_tree is not None:
        raise ConfigError(
            "--film-list: films are linked by the tables of MIMIC-IV; give their folder with --data"
        )
    source = open_source(config.data, config.dataset)
    table = films(source.root)
    linked = linked_films(stays_of_call(source, config), table, config).drop_nulls("dicom_id")
    wanted = linked.unique("dicom_id").sort("subject_id", "study_id", "dicom_id")
    folder = find_metadata(source.root) or source.root
    paths = [Path(path) for path in wanted["path"]]
    relative = [path.relative_to(folder).as_posix() for path in paths]
    if file.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        rest = (wanted[name].to_list() for name in _COLUMNS[1:])
        writer.writerows(zip(relative, *rest, strict=True))
        content = text.getvalue()
    else:
        content = "".join(f"{path}\n" for path in relative)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(file, content.encode())
    return FilmList(
        films=len(paths),
        stays=linked["stay_id"].n_unique(),
        missing=sum(not path.is_file() for path in paths),
        listed=table.height,
    )


__all__ = ["FilmList", "write_film_list"]
