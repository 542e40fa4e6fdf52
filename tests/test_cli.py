from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cm2.errors import ConfigError

COMMANDS = [
    "demo",
    "doctor",
    "extract",
    "fuse",
    "sweep",
    "evaluate",
    "compare",
    "predict",
    "report",
]
COMMANDS += ["reproduce", "inspect", "models", "cache", "weights"]


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def cm2(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("from cm2.cli import main; main()", *arguments)


def test_help_lists_every_command_and_imports_no_heavy_library() -> None:
    probe = (
        "import sys; sys.argv = ['cm2', '--help']\n"
        "from cm2.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code in (0, None)\n"
        "heavy = {'torch', 'polars', 'numpy', 'pydantic', 'pyarrow', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_an_interrupt_while_the_program_is_loaded_ends_without_a_traceback() -> None:
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from cm2.__main__ import main\n"
        "main()\n"
    )
    done = python(program, "--version")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stopped; give the same command again\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_without_importing_torch(command: str) -> None:
    probe = (
        f"import sys; sys.argv = ['cm2', {command!r}, '--help']\n"
        "from cm2.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code in (0, None)\n"
        "assert not {'torch', 'polars'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extrakt"], 2, "Did you mean 'extract'"),
        (["extract", "--presett", "x"], 2, "--preset"),
        (["extract", "--data", "x", "--preset", "refrence"], 2, "Did you mean 'reference'?"),
        (["extract"], 2, "--data must be given"),
        (["fuse", "--copula", "franc"], 2, "Did you mean 'frank'?"),
        (["fuse", "--set", "lamda_cop=1"], 2, "Did you mean 'lambda_cop'?"),
        (["sweep", "--grid", "copla=frank"], 2, "Did you mean 'copula'?"),
    ],
)
def test_a_usage_error_is_one_message_with_exit_code_2(
    arguments: list[str], code: int, message: str
) -> None:
    done = cm2(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_source_folder_is_exit_code_3_and_writes_nothing(tmp_path: Path) -> None:
    done = cm2("extract", "--data", str(tmp_path / "nowhere"), "--cache", str(tmp_path / "cache"))
    assert done.returncode == 3
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_an_absent_cache_is_exit_code_3_with_the_command_that_makes_it(tmp_path: Path) -> None:
    done = cm2("fuse", "--cache", str(tmp_path / "none"), "--task", "ihm")
    assert done.returncode == 3
    assert "cm2 extract" in done.stderr


def test_the_version_is_the_one_of_the_package() -> None:
    import cm2 as package

    done = cm2("--version")
    assert done.stdout.strip() == package.__version__


def test_an_interrupted_command_says_that_it_stopped() -> None:
    program = (
        "from cm2 import cli\n"
        "from cm2.commands import judging\n"
        "def ls() -> None: raise KeyboardInterrupt\n"
        "judging.ls = ls\n"
        "cli.main()\n"
    )
    done = python(program, "ls")
    assert done.returncode == 130
    assert done.stderr.strip() == "stopped; give the same command again"


def test_a_name_for_predictions_is_judged_before_anything_is_read(tmp_path: Path) -> None:
    from cm2.commands.judging import predict
    from cm2.fuse.inference import table_format

    with pytest.raises(ConfigError, match=r"\.parquet or \.csv, found 'p\.tsv'"):
        predict(tmp_path / "no run", tmp_path / "p.tsv")
    assert table_format(Path("P.CSV")) == "csv"
