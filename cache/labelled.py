"""Labels that were added to a cohort after it was written: the stays carry them as columns.

They stand beside stays.parquet, which stays as it is: links, and runs of other tasks, hold on.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ..errors import IntegrityError, quoted
from . import atomic
from .layout import LABELS, LABELS_FORMAT, table_name
from .record import require_schema


def add(folder: Path, stays: pa.Table, cohort: str) -> tuple[pa.Table, dict[str, str]]:
    """Add the later labels of a cohort to its stays.

    Args:
        folder: The cohort.
        stays: Its stays as the extraction wrote them.
        cohort: Its fingerprint.

    Returns:
        The stays with in_<task> and y_<task> of every task added later, behind the other columns
        and in place of earlier labels of the same task; and by task the hash of what was added.

    Raises:
        IntegrityError: A file is missing, altered, or belongs to another cohort.
    """
    found = {}
    for path in sorted((folder / LABELS).glob("*.json")):
        task = path.stem
        remedy = (
            f"Delete {path} and run `cm2 cache label {quoted(folder.parents[1])} --cohort "
            f"{folder.name} --task {task}=FILE` again."
        )
        content, digest = atomic.read_json_hash(path, remedy)
        require_schema(path, content)
        expected = {"format": LABELS_FORMAT, "task": task, "cohort": cohort}
        told = {key: content.get(key) for key in expected}
        if told != expected:
            raise IntegrityError(f"{path} labels {told}, expected {expected}. {remedy}")
        sha256 = content["tables"]["labels"]
        table = atomic.read_parquet(folder / LABELS / table_name(task, sha256), sha256, remedy)
        stays = stays.drop_columns(task_columns(stays.column_names, task))
        for column in task_columns(table.column_names, task):
            stays = stays.append_column(column, table[column])
        found[task] = digest
    return stays, found


def task_columns(names: list[str], task: str) -> list[str]:
    """Those columns that hold eligibility and labels of one task."""
    own = (f"in_{task}", f"y_{task}")
    return [name for name in names if name in own or name.startswith(f"y_{task}__")]
