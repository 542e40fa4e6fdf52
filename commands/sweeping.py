"""The command that trains many configurations: sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..console import metric_table, outline
from ..errors import ConfigError, quoted
from ..settings import DEFAULT_CACHE
from .board import Board
from .shared import (
    CacheOption,
    DryRun,
    JsonOption,
    TimeLimit,
    bars,
    print_json,
    stopping,
    suggest,
    verbosity,
)

if TYPE_CHECKING:
    from ..fuse.sweep.book import SweepDir


def sweep(
    cache: Path,
    out: Path | None,
    grid: list[str] | None,
    config: Path | None,
    preset: str | None,
    set_: list[str] | None,
    search: dict[str, Any],
    shard: str | None,
    engine: str,
    jobs: int | None,
    device: str,
    retry: bool,
    final: bool,
    dry_run: bool,
    time_limit: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train many configurations from the cache, and rank them on the validation stays."""
    from ..fuse.sweep.runner import How, require_all
    from ..fuse.sweep.runner import sweep as run
    from ..fuse.sweep.spec import sweep_spec
    from ..fuse.training.allocator import keep_freed_memory
    from ..options import as_given, read_settings

    given = read_settings(config, set_ or []) | ({"preset": preset} if preset else {})
    given.update(as_given(options))
    spec = sweep_spec(given, grid or [], search)
    if engine not in _ENGINES:
        raise ConfigError(f"--engine is one of {', '.join(_ENGINES)}; found {engine!r}.")
    how = How(_ENGINES[engine], jobs, device, shard, retry)
    if dry_run:
        from ..fuse.sweep.estimate import estimate

        facts = estimate(spec, cache, how)
        print_json(facts) if as_json else print("\n".join(outline(facts)))
        return
    keep_freed_memory()
    with Board(quiet=verbosity() < 0) as board:
        found = run(spec, cache, out, how, watch=board.show, stop=stopping(time_limit))
    show_sweep(found, final and not found.failures(), 1000, as_json)
    require_all(found)


def show_sweep(sweep: SweepDir, final: bool, replicates: int, as_json: bool) -> None:
    """Print what a sweep has found; with `final` judge its choice on the test stays."""
    from ..fuse.sweep.reading import read, text

    result = read(sweep)
    metrics = None
    if final:
        from ..fuse.sweep.choose import judge_chosen

        group, metrics = judge_chosen(
            sweep, replicates=replicates, progress=bars(), stop=stopping()
        )
        result["final"] = {"group": str(group.path), "test": metrics}
    if as_json:
        print_json(result)
    else:
        print(text(result))
        if metrics is not None:
            chosen = result["best"][0]["setting"]
            print(f"\n{metric_table([(f'setting {chosen}', 'test', metrics)])}")
    suggest(
        f"cm2 report {quoted(sweep.path / 'chosen')}"
        if final
        else f"cm2 compare {quoted(sweep.path)} --final"
    )


def _own(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_ENGINES: dict[str, Literal["local", "ray", "ensemble", "auto"]] = {
    "local": "local",
    "ray": "ray",
    "ensemble": "ensemble",
    "auto": "auto",
}
_SEARCH = ("seeds", "search", "halving", "budget", "keep", "draw_seed")


def configured() -> Callable[..., None]:
    """Give the command the options of `cm2 fuse` and its own."""
    generated: list[Parameter] = []
    if "sweep" in sys.argv[1:]:
        from ..fuse.config import FuseConfig
        from ..options import parameters

        generated = [p for p in parameters(FuseConfig) if p.name not in ("seed", "fold")]
    lines = typer.Option(
        help="An option and its values: copula=frank,gumbel  K=1:6  dropout=0.1:0.5/5  "
        "lambda_cop=1e-4..1e-1/4  'K=1:3 if copula=frank'.",
        metavar="NAME=VALUES",
    )
    directory = typer.Option(help="Directory of the sweep; default: one place per identity.")
    settings = typer.Option(
        help="TOML file: options of fuse, [grid], seeds, search, budget …", metavar="FILE.toml"
    )
    named = typer.Option(help="Options under the grid.", metavar="corrected|paper|reference")
    single = typer.Option("--set", help="One more setting under the grid.", metavar="NAME=VALUE")
    seeds = typer.Option(help="Seeds of every setting: FIRST:LAST or a list.", metavar="0:4")
    kind = typer.Option(help="How settings are chosen.", metavar="grid|random|tpe")
    halving = typer.Option(
        "--halving/--no-halving",
        help="Train all settings a little, the best third on, and so forth.",
    )
    budget = typer.Option(help="At most so many runs, or hours of training.", metavar="60|8h")
    keep = typer.Option(help="Settings whose weights are kept.  [default: 5]", min=0)
    drawn = typer.Option(help="Seed of a random or guided search.", min=0)
    part = typer.Option(help="Part of a job array, I from 0 to N - 1.", metavar="I/N")
    where = typer.Option(
        help="Processes here, tasks of a Ray cluster, or runs of one shape at once (small models, "
        "GPUs); auto measures whether the last or processes are faster.",
        metavar="local|ray|ensemble|auto",
    )
    processes = typer.Option(help="Runs at a time; default: one per core or GPU.", min=1)
    place = typer.Option(help="auto, cpu, cuda or cuda:INDEX.", metavar="DEVICE")
    again = typer.Option("--retry", help="Try failed runs again.")
    judged = typer.Option("--final", help="Then judge the chosen setting on the test stays.")
    own = [
        _own("cache", CacheOption, DEFAULT_CACHE),
        _own("out", Annotated[Path | None, directory], None),
        _own("grid", Annotated[list[str] | None, lines], None),
        _own("config", Annotated[Path | None, settings], None),
        _own("preset", Annotated[str | None, named], None),
        _own("set_", Annotated[list[str] | None, single], None),
        _own("seeds", Annotated[str | None, seeds], None),
        _own("search", Annotated[str | None, kind], None),
        _own("halving", Annotated[bool | None, halving], None),
        _own("budget", Annotated[str | None, budget], None),
        _own("keep", Annotated[int | None, keep], None),
        _own("draw_seed", Annotated[int | None, drawn], None),
        _own("shard", Annotated[str | None, part], None),
        _own("engine", Annotated[str, where], "local"),
        _own("jobs", Annotated[int | None, processes], None),
        _own("device", Annotated[str, place], "auto"),
        _own("retry", Annotated[bool, again], False),
        _own("final", Annotated[bool, judged], False),
        _own("dry_run", DryRun, False),
        _own("time_limit", TimeLimit, None),
        _own("as_json", JsonOption, False),
    ]

    def command(**given: Any) -> None:
        sweep(search={name: given.pop(name) for name in _SEARCH}, **given)

    command.__doc__ = sweep.__doc__
    command.__signature__ = Signature([*generated, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*generated, *own]}
    return command


__all__ = ["configured", "show_sweep", "sweep"]
