"""Stage one from end to end: cohort, then per modality plan, encode, commit, link."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..cache import layout
from ..cache.cohort import Cohort, write_links
from ..cache.labelled import task_columns
from ..cache.store import Store
from ..errors import RejectsError
from ..progress import Progress, Stop, never, silent
from . import engine, receipts
from .config import ExtractConfig
from .modalities import series_vectors
from .route import Route, open_route
from .summary import ExtractSummary, ModalityResult
from .work import Plan

_log = logging.getLogger("cm2.extract")


def extract(
    config: ExtractConfig, *, progress: Progress = silent, stop: Stop | None = None
) -> ExtractSummary:
    """Build the cohort if it is absent, then encode and link every modality asked for.

    A call that was killed or stopped continues from its last shard and ends with the same bytes;
    a finished one returns at once. Several modalities may be extracted into one cache by several
    processes.

    Args:
        config: Options.
        progress: Shows items encoded.
        stop: Looked at between shards.

    Raises:
        ConfigError: Options contradict each other or the existing cohort, or weights are missing.
        DataError: The source is missing, damaged or not what it should be.
        RejectsError: Everything is stored, but more items than allowed could not be read.
        Interrupted: Stopped on request.
    """
    stop = stop or never()
    route = open_route(config)
    cohort = route.cohort()
    results: list[ModalityResult] = []
    for modality in route.modalities:
        told = receipts.read(config, cohort, modality, route.tables(modality))
        if told is not None:
            result = ModalityResult(**{**told, "encoded": 0, "seconds": 0.0})
        else:
            result = _extract_one(route, cohort, config, modality, progress, stop)
        results.append(result)
        if result.weights.startswith("random:"):
            _log.warning(
                "%s: the encoder has random weights (%s) and has learnt nothing; every table and "
                "report of this cache says so",
                modality,
                result.weights,
            )
        if result.caution:
            _log.warning("%s", result.caution)
    _refuse_rejects(config, results)
    info = cohort.info
    dataset = f"{info['dataset']} {info['release']}".strip()
    dataset += ", synthetic" if info["synthetic"] else ""
    return ExtractSummary(
        cache=config.cache,
        cohort=cohort.name,
        dataset=dataset,
        stays=cohort.stays.num_rows,
        attrition=info["attrition"],
        tasks=info["tasks"],
        modalities=tuple(results),
    )


def plan(config: ExtractConfig) -> list[dict[str, object]]:
    """Say what `extract` would do: one row per modality, see `estimate.Estimate`; writes nothing.

    Raises:
        DataError: There is no source at all.
    """
    route = open_route(config)
    return [route.estimate(modality).as_row() for modality in route.modalities]


def _extract_one(
    route: Route,
    cohort: Cohort,
    config: ExtractConfig,
    modality: str,
    progress: Progress,
    stop: Stop,
) -> ModalityResult:
    start = time.monotonic()
    tables = route.tables(modality)
    planned = route.plan(cohort, modality)
    run = series_vectors.run_of(config, modality, sole=len(route.modalities) == 1)
    if run is not None and planned.space.view == "series":
        planned = series_vectors.encoded(planned, run)
    store, encoded, complete = engine.encode(config, planned, progress, stop)
    write_links(config.cache, cohort.name, modality, planned.links, planned.rules)
    result = replace(
        _result(cohort, planned, store),
        encoded=encoded,
        complete=complete,
        seconds=time.monotonic() - start,
        rejects=_rejects_table(config, store),
    )
    if complete:
        told = {**asdict(result), "encoded": 0, "seconds": 0.0}
        receipts.write(config, cohort, modality, store.path, tables, planned.files, told)
    return result


def _result(cohort: Cohort, plan: Plan, store: Store) -> ModalityResult:
    """Count what the cohort has of a modality, with what the store really holds."""
    held = set(store.items["item_id"].to_pylist())
    columns = (store.rejects[name].to_pylist() for name in ("item_id", "error"))
    failed = dict(zip(*columns, strict=True))
    rejected = [w for w in plan.work if failed.get(w.item_id, "") not in {"", *plan.absences}]
    has: dict[Any, bool] = {}
    absent: Counter[str] = Counter()
    for row in plan.links.to_pylist():
        has[row["stay_id"]] = any(item in held for item in row["items"])
        if has[row["stay_id"]]:
            continue
        kind = next((failed[item] for item in row["items"] if item in failed), None)
        if row["why_no"] is None and kind is not None:
            absent[plan.absences.get(kind, "rejected")] += 1
        else:
            absent[row["why_no"] or "not_encoded_yet"] += 1
    tasks = {
        task: len(judged & {stay for stay, there in has.items() if there})
        for task in cohort.tasks
        for judged in [_judged(cohort, task)]
    }
    return ModalityResult(
        name=plan.space.modality,
        items=len(plan.work),
        encoded=0,
        rejected=len(rejected),
        stays=sum(has.values()),
        tasks=tasks,
        absent=dict(sorted(absent.items())),
        space=plan.space.id,
        complete=False,
        weights=plan.note,
        caution=plan.caution,
        timing=plan.timing,
        plausibility=tuple(dict(row) for row in plan.plausibility),
    )


def _judged(cohort: Cohort, task: str) -> set[Any]:
    """The stays that are eligible for a task and have a known label of it."""
    names = task_columns(cohort.stays.column_names, task)
    labels = [cohort.stays[name].to_pylist() for name in names if name.startswith("y_")]
    columns = (cohort.stays[name].to_pylist() for name in ("stay_id", f"in_{task}"))
    rows = zip(*columns, *labels, strict=True)
    return {stay for stay, eligible, *y in rows if eligible and any(v is not None for v in y)}


def _rejects_table(config: ExtractConfig, store: Store) -> str:
    name = layout.table_name("rejects", store.manifest["tables"]["rejects"])
    return (store.path / name).relative_to(config.cache).as_posix()


def _refuse_rejects(config: ExtractConfig, results: Sequence[ModalityResult]) -> None:
    over = [m for m in results if m.rejected > config.max_reject * m.items]
    if over:
        counts = "; ".join(
            f"{m.name}: {m.rejected:,} of {m.items:,} items ({m.rejected / m.items:.2%}), listed "
            f"in {config.cache / m.rejects}"
            for m in over
        )
        raise RejectsError(
            f"Everything readable is stored, but more than {config.max_reject:.2%} of the items "
            f"were rejected: {counts}. Mend the files and run the same command again, or raise "
            "--max-reject."
        )


__all__ = ["extract", "plan"]
