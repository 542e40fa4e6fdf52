"""Models in the offline cache of the Hugging Face hub, named by id and revision.

Looking one up never touches the network. `fetch` does, and only when it is called by name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, ResourceError

PREFIX = "hub:"
_REFERENCE = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)@(?P<revision>\w[\w./-]*)"
)
_SAFE = ("*.json", "*.txt", "*.model", "*.safetensors")
_PICKLED = ("pytorch_model.bin",)


@dataclass(frozen=True)
class HubReference:
    """A model of the hub at one revision.

    Args:
        id: OWNER/NAME, or NAME of a model without an owner.
        revision: Commit, tag or branch; a commit is the only one that never moves.
    """

    id: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read `hub:ID@REV` or `ID@REV`.

        Raises:
            ConfigError: The text is neither.
        """
        found = _REFERENCE.fullmatch(text.removeprefix(PREFIX))
        if found is None or ".." in text:
            raise ConfigError(
                f"{text}: expected hub:OWNER/NAME@REVISION, such as "
                "hub:huawei-noah/TinyBERT_General_4L_312D@main; a revision is a commit, tag or "
                "branch and must be given"
            )
        return cls(found["id"], found["revision"])

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}@{self.revision}"

    @property
    def folder(self) -> Path:
        """Folder of the model in the offline cache, whether it is there or not."""
        return cache_folder() / ("models--" + self.id.replace("/", "--"))

    def commit(self) -> str | None:
        """The commit that the revision names in the offline cache; None when it is not there."""
        branch = self.folder / "refs" / self.revision
        if branch.is_file():
            return branch.read_text(encoding="utf-8").strip()
        return self.revision if (self.folder / "snapshots" / self.revision).is_dir() else None

    def snapshot(self) -> Path:
        """Folder with the files of the model.

        Raises:
            ConfigError: The offline cache does not hold it.
        """
        commit = self.commit()
        folder = self.folder / "snapshots" / (commit or "none")
        if commit is None or not folder.is_dir():
            raise ConfigError(
                f"{self}: not in the offline cache {cache_folder()}. Download it once with "
                f"`cm2 weights fetch {self}`, or give the folder of a copy."
            )
        return folder


def cache_folder() -> Path:
    """Where the hub's own tools keep downloaded models."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def is_offline() -> bool:
    """Whether CM2_OFFLINE forbids every use of the network."""
    return os.environ.get("CM2_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def fetch(text: str) -> Path:
    """Download a model of the hub into the offline cache.

    Weights come as .safetensors; a pickled file is downloaded only where the model has no other,
    and is never opened here.

    Args:
        text: `hub:ID@REV` or `ID@REV`.

    Returns:
        Its folder in the offline cache.

    Raises:
        ConfigError: The text names no model, or CM2_OFFLINE is set.
        ResourceError: The download failed.
    """
    reference = HubReference.parse(text)
    if is_offline():
        raise ConfigError(
            f"{reference}: CM2_OFFLINE is set, so nothing is downloaded. Unset it for this one "
            "command, or fetch on another machine and copy the folder."
        )
    import huggingface_hub

    name, revision = reference.id, reference.revision
    try:
        listed = huggingface_hub.list_repo_files(name, revision=revision)
        safe = any(file.endswith(".safetensors") for file in listed)
        folder = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[*_SAFE, *(() if safe else _PICKLED)],
            cache_dir=cache_folder(),
        )
    except Exception as error:
        raise ResourceError(
            f"{reference}: the download failed ({type(error).__name__}). Check the name, the "
            "revision and the network, and run the same command again."
        ) from error
    return Path(folder)


__all__ = ["PREFIX", "HubReference", "cache_folder", "fetch", "is_offline"]
