"""What the paper's tables and figures compare, as data: lines, settings, tasks.

The lines of a setting differ in one factor from the line that is the paper's CM2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        key: Its row in paper.csv; for a plain method also its name in the registry.
        title: How it is called.
        options: What it sets, by configuration field; `model` is always among them.
        cm2: Whether it is the CM2 that all others are compared with.
        added: Whether it is ours: the paper has no such line.
    """

    key: str
    title: str
    options: Options
    cm2: bool = False
    added: bool = False


@dataclass(frozen=True)
class Setting:
    """Lines that are trained on the same stays.

    Attributes:
        title: What is particular about the stays.
        rows: As in the configuration.
        lines: What is compared.
        modalities: By data set, what the paper reads; other data sets need them named.
        options: What all lines set.
        encoders: Column of Table 10.
        image: How the name of the film encoder begins; empty takes the store there is.
        drop: Modalities withheld, as in the configuration.
    """

    title: str
    rows: Literal["matched", "partial"]
    lines: tuple[Line, ...]
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    encoders: str = ""
    image: str = ""
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: On the command line.
        title: What it shows.
        settings: What is trained.
        tasks: Tasks of the paper.
        sources: Where its numbers stand in paper.csv, first things first.
        says: What to know before reading it.
        figure: What is drawn beside the numbers: `values` by K; or, of the copula alone, its
            `densities` by family, its `course` over epochs or its density at some `epochs`.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    tasks: tuple[str, ...] = ("ihm", "readm")
    sources: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    figure: Literal["", "values", "densities", "course", "epochs"] = ""

    @property
    def of_copula(self) -> bool:
        """Whether only the copula is looked at: nothing is compared, no test stay is read."""
        return self.figure in ("densities", "course", "epochs")


TITLES = {
    "cm2": "CM2",
    "mmtm": "MMTM",
    "daft": "DAFT",
    "unified": "Unified",
    "unified_dynamic": "Unified, dynamic",
    "medfuse": "MedFuse",
    "drfuse": "DrFuse",
    "lsmt": "LSMT",
    "interleaved": "Interleaved",
    "shaspec": "ShaSpec",
    "flexmoe": "Flex-MoE",
    "late": "late fusion",
    "logistic": "logistic regression",
    "boosting": "boosted trees",
    "availability": "availability alone",
}
"""How methods are called where their name in the registry is not it."""

BIMODAL = {"mimic3": ("ehr", "note"), "mimic4": ("ehr", "cxr")}
FILMS = {"mimic4": ("ehr", "cxr")}
TRIMODAL = {"mimic4": ("ehr", "cxr", "report")}
RIVALS = ("mmtm", "daft", "unified", "medfuse", "drfuse")
LATER = ("lsmt", "interleaved")


def method(name: str, **options: Any) -> Line:
    """A method of the registry with its default options, or some set."""
    title = ", ".join([TITLES.get(name, name), *(f"{k} {v}" for k, v in options.items())])
    return Line(name, title, {"model": name, **options}, cm2=name == "cm2" and not options)


def variant(key: str, title: str, cm2: bool = False, added: bool = False, **options: Any) -> Line:
    """CM2 with some options set."""
    return Line(key, title, {"model": "cm2", **options}, cm2, added)


def _methods(names: tuple[str, ...], rows: str) -> tuple[Line, ...]:
    """The paper's methods; its CM2 draws what is missing from the marginal."""
    rivals = tuple(method(name) for name in names)
    if rows == "matched":
        return (*rivals, method("cm2"))
    return (
        *rivals,
        variant("cm2", "CM2 (marginal draws)", cm2=True, impute="marginal"),
        variant("cm2-zero", "CM2 (zeros for what is missing)", added=True, impute="zero"),
    )


FROZEN = (
    "Where a film or text encoder is frozen in the cache this is another experiment than the "
    "paper's, which trains it end to end: its numbers, marked ≠, are no target."
)
SOUND = (
    "The paper: one seed, and intervals of the MIMIC-III lines of CM2 that do not fit their number "
    "of stays."
)

_COPULAS = tuple(
    variant(name, f"CM2, {name.capitalize()}", cm2=name == "frank", copula=name)
    for name in ("gumbel", "frank", "gaussian")
)
_COPULAS_DRAWN = tuple(
    Line(one.key, one.title, {**one.options, "impute": "marginal"}, one.cm2) for one in _COPULAS
)
_GUMBEL = Setting("matched", "matched", (replace(_COPULAS[0], cm2=True),), FILMS)
_MIXTURES = tuple(variant(f"K={K}", f"CM2, K = {K}", cm2=K == 3, K=K) for K in range(1, 7))

EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "table2",
            "All modalities present (matched)",
            (Setting("matched", "matched", _methods(RIVALS, "matched"), BIMODAL),),
            sources=("table2", "table9"),
            says=(FROZEN, SOUND),
        ),
        Experiment(
            "table3",
            "Some modalities missing (partial)",
            (Setting("partial", "partial", _methods(RIVALS, "partial"), BIMODAL),),
            sources=("table3", "table9"),
            says=(FROZEN, SOUND),
        ),
        Experiment(
            "table4",
            "What aligns the embeddings",
            (
                Setting(
                    "matched",
                    "matched",
                    (
                        variant("none", "none", added=True, align="none"),
                        variant("cosine", "cosine", align="cosine"),
                        variant("kl", "KL", align="kl"),
                        variant("infonce", "InfoNCE", added=True, align="infonce"),
                        variant("copula", "copula (CM2)", cm2=True, align="copula"),
                    ),
                    FILMS,
                ),
            ),
            sources=("table4",),
            says=(
                FROZEN,
                "The published scripts weigh cosine and KL by 1, here lambda_align is 0.1: "
                "--methods none,cm2+align=kl+lambda_align=1 takes another weight.",
            ),
        ),
        Experiment(
            "table5",
            "CM2 without one of its parts",
            (
                Setting(
                    "partial",
                    "partial",
                    (
                        variant(
                            "without-copula", "without copula", impute="marginal", align="none"
                        ),
                        variant("without-gps", "without draws (zeros)", impute="zero"),
                        variant(
                            "without-fusion",
                            "without fusion (one linear map)",
                            impute="marginal",
                            fusion="concat",
                        ),
                        variant(
                            "conditional",
                            "draws given what is present",
                            added=True,
                            impute="conditional",
                        ),
                        variant("cm2", "CM2 (marginal draws)", cm2=True, impute="marginal"),
                    ),
                    FILMS,
                ),
                Setting(
                    "matched",
                    "matched",
                    (
                        variant("without-copula", "without copula", align="none"),
                        variant(
                            "without-fusion", "without fusion (one linear map)", fusion="concat"
                        ),
                        variant("cm2", "CM2", cm2=True),
                    ),
                    FILMS,
                ),
            ),
            sources=("table5",),
            says=(FROZEN,),
        ),
        Experiment(
            "table6",
            "Copula families",
            (
                Setting("partial", "partial", _COPULAS_DRAWN, FILMS),
                Setting("matched", "matched", _COPULAS, FILMS),
            ),
            sources=("table6",),
            says=(FROZEN,),
        ),
        Experiment(
            "table7",
            "Three modalities (matched)",
            (Setting("tri-modal", "matched", _methods(RIVALS, "matched"), TRIMODAL),),
            sources=("table7",),
            says=(
                FROZEN,
                "The published code ignores the report in MedFuse and CM2; here every method "
                "reads it.",
            ),
        ),
        Experiment(
            "table9",
            "Further baselines",
            (
                Setting("matched", "matched", _methods(LATER, "matched"), FILMS),
                Setting("partial", "partial", _methods(LATER, "partial"), FILMS),
            ),
            sources=("table9",),
            says=(FROZEN,),
        ),
        Experiment(
            "table10",
            "Encoders of series and films",
            tuple(
                Setting(
                    f"{series.upper() if series == 'lstm' else 'Transformer'} + {title}",
                    "matched",
                    _methods((*RIVALS, *LATER), "matched"),
                    FILMS,
                    {"series_encoder": series},
                    f"{series}+{image}",
                    image,
                )
                for series in ("lstm", "transformer")
                for image, title in (("resnet", "ResNet"), ("vit", "ViT"))
            ),
            sources=("table10",),
            says=(FROZEN, "The published code can run neither a ViT nor this Transformer."),
        ),
        Experiment(
            "table11",
            "Tests of CM2 against each method",
            (Setting("matched", "matched", _methods(RIVALS, "matched"), FILMS),),
            sources=("table2",),
            says=(
                FROZEN,
                "The paper's t-tests take bootstrap replicates for observations, so that their p "
                "falls with the number of replicates; ours are paired and resample patients.",
            ),
        ),
        Experiment(
            "figure2",
            "Fitted copula densities",
            (Setting("matched", "matched", _COPULAS, FILMS),),
            says=(FROZEN, "The paper shows the densities and prints no numbers."),
            figure="densities",
        ),
        Experiment(
            "figure3",
            "Dependence over epochs",
            (_GUMBEL,),
            says=(FROZEN, "The paper prints the last epoch of its figure."),
            figure="course",
        ),
        Experiment(
            "figure4",
            "Copula density over epochs",
            (_GUMBEL,),
            says=(FROZEN, "The paper shows epochs 5, 50 and 100; here the nearest that there are."),
            figure="epochs",
        ),
        Experiment(
            "figure5",
            "The number of mixture components",
            (Setting("matched", "matched", _MIXTURES, FILMS),),
            says=(FROZEN, "The paper shows curves and prints no numbers."),
            figure="values",
        ),
    )
}


__all__ = ["EXPERIMENTS", "TITLES", "Experiment", "Line", "Setting", "method", "variant"]
