"""A method of the user's own: from a file, part of a run's identity, checked like any other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cm2
from cm2.errors import ConfigError, IntegrityError
from cm2.fuse.config import FuseConfig
from cm2.fuse.conformance import CHECKS, examine, subjects
from cm2.fuse.identity import Inputs, identify
from cm2.fuse.inference import predict
from cm2.fuse.methods import canonical, find, own
from cm2.fuse.models import model_class
from cm2.fuse.rundir import RunDir
from cm2.fuse.sweep.spec import sweep_spec
from cm2.fuse.sweep.work import Context, Task, Worker
from cm2.fuse.training.gain import unmapped
from cm2.fuse.training.shapes import unmappable
from cm2.fuse.training.trainer import fuse
from cm2.progress import never

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"
TINY = {"hidden": 4, "fusion_hidden": 4, "epochs": 1}


def template() -> str:
    """The class that docs/methods.md shows."""
    (text,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return str(text)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(template())
    return path


def config(path: Path, **options: object) -> FuseConfig:
    return FuseConfig.of({**TINY, "task": "ihm", "model": f"{path}:MyFusion", **options})


def test_the_template_of_the_documentation_conforms(mine: Path) -> None:
    (subject,) = subjects(f"{mine}:MyFusion")
    findings = [examine(subject, name) for name in CHECKS]
    assert [(f.check, f.reason) for f in findings if not f.good] == []


def test_a_file_is_loaded_without_a_trace_in_the_path(mine: Path) -> None:
    before = list(sys.path)
    found = config(mine, options={"alpha": "0.3"})
    assert sys.path == before
    assert found.options.model_dump() == {"alpha": 0.3}
    assert re.fullmatch(r"mine\.py:MyFusion@[0-9a-f]{12}", found.model)
    assert str(mine.parent) not in found.model_dump_json()
    assert model_class(found.model).__name__ == "MyFusion"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpah": 1}, "Unknown option of .*MyFusion.* Did you mean 'alpha'"),
        ({"alpha": -1}, "model.alpha = -1"),
    ],
)
def test_its_options_are_checked(mine: Path, options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(mine, options=options)


def test_options_of_cm2_are_refused(mine: Path) -> None:
    with pytest.raises(ConfigError, match="copula does nothing"):
        config(mine, copula="gumbel")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class MyFusion:\n    pass\n", "no subclass of"),
        ("import no_such_package\n", "ModuleNotFoundError.*line 1"),
        ("x = 1\n", "has no class 'MyFusion'"),
        (
            "from cm2.fuse.models.interface import FusionModel\n"
            "class MyFusion(FusionModel):\n    absence = 'none'\n",
            "lacks forward",
        ),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_a_file_without_a_method_is_refused_with_the_reason(
    tmp_path: Path, text: str, found: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=found):
        config(path)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        FuseConfig.of({"model": "nowhere.py:MyFusion"})


def test_the_source_and_not_its_place_is_part_of_the_identity(
    mine: Path, tmp_path: Path, small_cache: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "mine.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(mine.read_text())
    first = identify(config(mine), small_cache)
    assert identify(config(elsewhere), small_cache).digest == first.digest
    assert first.name.startswith("MyFusion-ihm-")
    elsewhere.write_text(mine.read_text() + "# another\n")
    assert identify(config(elsewhere), small_cache).digest != first.digest


def test_a_run_is_loaded_and_predicted_by_its_own_source_only(
    mine: Path, tmp_path: Path, small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fuse(config(mine), small_cache, tmp_path / "run")
    here = cm2.load_run(run.path)
    text = mine.read_text()

    forgotten: dict[str, object] = {}
    monkeypatch.setattr(own, "OWN", forgotten)
    monkeypatch.setattr("cm2.fuse.methods.OWN", forgotten)
    opened = RunDir.open(run.path)
    assert opened.config.options.model_dump() == {"alpha": 0.1}  # readable without its source
    again = cm2.load_run(run.path)
    for name, part in here.state_dict().items():
        assert np.array_equal(part, again.state_dict()[name])
    assert predict(opened, small_cache, "test").num_rows > 0

    forgotten.clear()
    mine.write_text(text + "# changed\n")
    with pytest.raises(IntegrityError, match="has changed since the run was trained"):
        predict(RunDir.open(run.path), small_cache, "test")
    mine.unlink()
    with pytest.raises(ConfigError, match="nor in the current folder"):
        cm2.load_run(run.path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    (tmp_path / "folder" / "mine.py").write_text(text)
    cm2.load_run(run.path)


def test_a_source_of_another_user_is_not_executed(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own.load_file(f"{mine}:MyFusion")
    recorded = dict(own.source(name) or {})
    monkeypatch.setattr(own, "OWN", {})
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr(own, "_is_ours", lambda path: False)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError, match="as your own file"):
        own.load_again(name, recorded)


def test_a_class_can_be_registered(mine: Path) -> None:
    kind = model_class(own.load_file(f"{mine}:MyFusion"))
    name = cm2.register_model(kind)
    assert find(name).network is kind
    assert FuseConfig.of({"model": name, "options": {"alpha": 1}}).options.model_dump() == {
        "alpha": 1.0
    }


def test_a_class_without_source_cannot_be_registered() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        cm2.register_model(type("Made", (), {"__module__": "builtins"}))


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-c", "from cm2.cli import main; main()", "models", *arguments]
    return subprocess.run(
        call, capture_output=True, text=True, cwd=folder, timeout=500, check=False
    )


@pytest.mark.slow
def test_the_command_names_what_a_broken_method_does_wrong(mine: Path) -> None:
    mine.write_text(
        mine.read_text()
        .replace("z = self.encoders(batch)", "z = self.encoders(batch).detach()")
        .replace("self.layer(z.sum(1))", "self.layer(z[:, 0])")
    )
    done = command("check", "./mine.py:MyFusion", "--json", folder=mine.parent)
    assert done.returncode == 4, done.stderr
    failed = {f["check"]: f["reason"] for f in json.loads(done.stdout) if f["result"] == "fail"}
    assert "cxr does not change a stay that has it" in failed["sensitivity"]
    assert "gets no gradient" in failed["gradients"]
    assert "checks hold" in done.stderr


def test_the_command_shows_options_and_presets(mine: Path) -> None:
    done = command("./mine.py:MyFusion", folder=mine.parent)
    assert done.returncode == 0, done.stderr
    assert "model.alpha" in done.stdout
    assert "at least 0" in done.stdout


def test_a_worker_loads_the_source_that_the_task_was_given_with(mine: Path) -> None:
    task = Task(3, config(mine, options={"alpha": 0.3}))
    content = json.loads(json.dumps(task.to_json()))
    del own.OWN[task.config.model]  # as in another process
    again = Task.from_json(content)
    assert again.config.options.model_dump() == {"alpha": 0.3}
    assert find(task.config.model).network is not None
    del own.OWN[task.config.model]
    mine.write_text(template() + "\n")
    (outcome,) = Worker(Context(str(mine.parent), "cpu", None)).take([content], never())
    assert (outcome.index, outcome.kind) == (3, "fatal")
    assert "has changed" in outcome.reason


def test_a_sweep_knows_a_method_by_its_source(mine: Path) -> None:
    name = f"{mine}:MyFusion"
    by_option = sweep_spec({"model": name}, ["model.alpha=0.1,0.3"], {})
    by_grid = sweep_spec({}, [f"model=concat,{name}"], {})
    assert by_option.base["model"] == by_grid.axes[0].values[1] == canonical(name)
    mine.write_text(template() + "\n")
    assert sweep_spec({"model": name}, [], {}).base["model"] != by_option.base["model"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", None),
        ("if logits.sum() > 1e9: logits = logits + 1", "cannot be mapped over members"),
    ],
)
def test_a_method_is_mapped_where_it_can_be(
    mine: Path, small_cache: Path, line: str, reason: str | None
) -> None:
    mine.write_text(
        template().replace("        return Fusion", f"        {line}\n        return Fusion")
    )
    inputs = Inputs(small_cache)
    one = inputs.identify(config(mine))
    assert unmappable(one.config) is None  # so it says itself
    found = unmapped([one.config, one.config], inputs.load(one))
    assert (found is None) if reason is None else (reason in str(found))
