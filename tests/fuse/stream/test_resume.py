"""A streamed run that is stopped or killed, in an epoch too, ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cm2.cache import atomic
from cm2.errors import ConfigError, Interrupted
from cm2.fuse.config import FuseConfig
from cm2.fuse.group import RunGroup
from cm2.fuse.rundir import RunDir
from cm2.fuse.training.trainer import fuse, plan
from cm2.progress import Stop

TIMED = {"run.json"}


def digests(run: Path) -> dict[str, str]:
    files = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in TIMED]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class StopAt(Stop):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def check(self, finished: str) -> None:
        if finished.startswith(self.where):
            raise Interrupted(finished)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(
    pixel_cache: Path, stream: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "run"
    fuse(stream.options(batch_size=8), pixel_cache, out)
    return digests(out)


@pytest.mark.parametrize("where", ["step 2 of epoch 1 ", "epoch 1 ", "step 4 of epoch 2 "])
def test_a_run_stopped_between_two_steps_ends_with_the_same_bytes(
    pixel_cache: Path, stream: ModuleType, place: Path, whole: dict[str, str], where: str
) -> None:
    config = stream.options(batch_size=8)
    with pytest.raises(Interrupted):
        fuse(config, pixel_cache, place, stop=StopAt(where), save_steps=2, workers=0)
    fuse(config, pixel_cache, place, workers=1)
    assert digests(place) == whole


def test_a_cached_run_stopped_between_two_steps_ends_with_the_same_bytes(
    small_cache: Path, tmp_path: Path
) -> None:
    config = FuseConfig.of(
        {"hidden": 8, "model": "concat", "modalities": ("ehr", "cxr"), "epochs": 2, "batch_size": 9}
        | {"published": {"validate_first": True}}
    )
    fuse(config, small_cache, tmp_path / "run")
    expected = digests(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(Interrupted):
        fuse(config, small_cache, tmp_path / "run", stop=StopAt("step 3 "), save_steps=3)
    fuse(config, small_cache, tmp_path / "run")
    assert digests(tmp_path / "run") == expected


class Killed(BaseException):
    pass


@pytest.mark.fault
def test_a_failure_at_any_of_ten_writes_leaves_a_run_that_ends_the_same(
    pixel_cache: Path,
    stream: ModuleType,
    place: Path,
    whole: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = stream.options(batch_size=8)
    steps: list[str] = []
    monkeypatch.setattr(atomic, "step_hook", steps.append)
    fuse(config, pixel_cache, place, save_steps=2)
    shutil.rmtree(place)
    points = [3 + i * (len(steps) - 4) // 9 for i in range(10)]
    assert len(set(points)) == 10
    for fatal in points:
        left = iter(range(fatal - 1))

        def kill(step: str, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Killed

        monkeypatch.setattr(atomic, "step_hook", kill)
        with pytest.raises(Killed):
            fuse(config, pixel_cache, place, save_steps=2)
        monkeypatch.setattr(atomic, "step_hook", lambda step: None)
        fuse(config, pixel_cache, place, save_steps=2)
        assert digests(place) == whole
        shutil.rmtree(place)


def command(options: dict[str, object], cache: Path, out: Path) -> list[str]:
    words = ["fuse", "--cache", str(cache), "--out", str(out), "--save-steps", "2"]
    for name, value in options.items():
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        words += [f"--{name if name == 'K' else name.replace('_', '-')}", text]
    return words


@pytest.mark.fault
def test_a_killed_process_is_continued_by_the_same_command(
    pixel_cache: Path,
    stream: ModuleType,
    place: Path,
    whole: dict[str, str],
    killed: Callable[..., bool],
) -> None:
    options = {**stream.TINY, **stream.CM2, "batch_size": 8}
    words = command(options, pixel_cache, place)
    assert killed(40, *words)
    assert not RunDir.open(place).finished
    done = subprocess.run([sys.executable, "-m", "cm2", *words], check=False, timeout=300)
    assert done.returncode == 0
    assert digests(place) == whole


def test_a_look_ahead_measures_the_time_of_a_streamed_run(
    pixel_cache: Path, stream: ModuleType, place: Path
) -> None:
    told = plan(stream.options(epochs=50), pixel_cache, place)
    assert told["seconds_per_epoch"] > 0
    assert told["hours_at_most"] == pytest.approx(told["seconds_per_epoch"] / 72, abs=1e-3)
    assert not place.exists()


def test_torchrun_is_refused_for_a_cached_run(
    small_cache: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="mode = 'stream' only"):
        fuse(FuseConfig.of({"epochs": 1}), small_cache, place)


def test_synchronised_norms_are_refused_on_a_cpu(
    pixel_cache: Path, stream: ModuleType, place: Path
) -> None:
    with pytest.raises(ConfigError, match="GPUs only"):
        fuse(stream.options(trunk_norm="sync"), pixel_cache, place, device="cpu")


PROCESSES = """
import sys
from dataclasses import replace
import torch
from torch.utils._pytree import tree_map

torch.set_default_dtype(torch.float64)
from cm2.fuse.config import FuseConfig
from cm2.fuse.stream.data import StreamData
from cm2.fuse.training import trainer
from pathlib import Path
import json

def exact(tensor):
    return tensor.double() if tensor.dtype == torch.float32 else tensor

plain = StreamData.to
StreamData.to = lambda self, device: replace(self, whole=tree_map(exact, plain(self, device).whole))
cache, out, options = sys.argv[1:]
trainer.fuse(FuseConfig.of(json.loads(options)), Path(cache), Path(out), device="cpu")
"""


def together(cache: Path, out: Path, config: FuseConfig, script: Path, processes: int) -> RunDir:
    script.write_text(PROCESSES)
    first = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [str(script), str(cache), str(out), config.model_dump_json()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *(first if processes > 1 else []), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDir.open(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"trunk": ("cxr=resnet8_gn",), "batch_size": 4, "epochs": 2},
        {"trunk_norm": "frozen", "align": "infonce", "epochs": 1},
    ],
    ids=["group norm, steps without a film", "frozen norm, contrast over the step"],
)
def test_two_processes_equal_one(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path, given: dict[str, object]
) -> None:
    import torch

    from cm2.cache import checkpoint

    config = stream.options(**given)
    run: Callable[[int], RunDir] = lambda n: together(  # noqa: E731
        pixel_cache, tmp_path / f"run{n}", config, tmp_path / "script.py", n
    )
    one, two = run(1), run(2)
    assert one.finished
    assert two.finished
    alone, _ = checkpoint.load(one.path / "last.safetensors")
    shared, _ = checkpoint.load(two.path / "last.safetensors")
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(shared[name], tensor, rtol=1e-8, atol=1e-10, msg=name)
    for here, there in zip(one.history, two.history, strict=True):
        assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-9)


@pytest.mark.slow
def test_processes_meet_again_for_every_run_of_a_group_and_one_of_them_speaks(
    pixel_cache: Path, stream: ModuleType, tmp_path: Path
) -> None:
    cache, settings = Path(shutil.copytree(pixel_cache, tmp_path / "c")), tmp_path / "run.toml"
    shown = stream.options(trunk=("cxr=resnet8_gn",), epochs=1).model_dump(
        include={*stream.TINY, *stream.CM2}
    )
    settings.write_text("\n".join(f"{name} = {json.dumps(v)}" for name, v in shown.items()))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["-m", "cm2", "fuse", "--cache", str(cache), "--config", str(settings)]
    done = subprocess.run(
        [sys.executable, *torchrun, *words, "--seeds", "0:1", "--pretrain", "cxr", "--final"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("group: ") == 1
    assert done.stderr.count("are collapsing") == 2, done.stderr  # once for each run
    assert done.stderr.count("fuse seeds: ") == 1, done.stderr
    (place,) = (cache / "runs").glob("seeds-*")
    group = RunGroup.open(place)
    assert [run.info["looks"] for run in group.members] == [{"test": 1}] * 2
