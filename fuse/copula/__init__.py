"""Copulas, Gaussian-mixture marginals and their joint density: mathematics on tensors.

`COPULAS` is the registry: a further family is one class, added here by its name.
"""

from __future__ import annotations

from ...errors import ConfigError, did_you_mean
from .clayton import Clayton
from .family import Copula, Params
from .frank import Frank
from .gaussian import Gaussian
from .gumbel import Gumbel
from .independence import Independence
from .student_t import Student

COPULAS: dict[str, type[Copula]] = {
    "independence": Independence,
    "clayton": Clayton,
    "frank": Frank,
    "gumbel": Gumbel,
    "gaussian": Gaussian,
    "student": Student,
}


def get_copula(name: str) -> Copula:
    """The family of this name, with its default options.

    Raises:
        ConfigError: No such family; the message names the nearest one.
    """
    if name not in COPULAS:
        hint = did_you_mean(name, COPULAS)
        raise ConfigError(f"unknown copula {name!r}, expected one of {', '.join(COPULAS)}.{hint}")
    return COPULAS[name]()


__all__ = ["COPULAS", "Copula", "Params", "get_copula"]
