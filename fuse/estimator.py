"""CM2 and its rivals in the manner of scikit-learn: `cm2.CM2Classifier`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ..cache import checkpoint
from ..errors import ConfigError, DataError, SchemaError
from ..progress import never, silent
from .columns import Part, Reading, digests, from_arrays, from_table
from .combinations import STREAM_ONLY
from .config import FuseConfig
from .hold_out import hold_out
from .inference import build, forward
from .models.imputation import RANDOM
from .models.interface import FusionModel, Hyper
from .parameters import decode, encode, plain
from .precision import precision
from .random import Keys, stay_keys
from .rows import FusionData, assemble
from .training.device import choose
from .training.finish import judge_best
from .training.history import best_epoch
from .training.loop import reproducible, train
from .training.state import InMemory

OF_A_CACHE = (
    *("task", "cohort", "modalities", "rows", "require", "beside", "drop", "drop_train"),
    *("folds", "fold", "mode", *STREAM_ONLY),
)
"""Fields of FuseConfig that say which stays of a cache are read: here they are handed in."""

Floats = NDArray[np.float64]


class Draws(NamedTuple):
    """What a model fills in for absent modalities.

    Attributes:
        embeddings: By modality ``(n, N, D)``; all n equal a row's own embedding where it has the
            modality.
        probabilities: Probability of the second class that each completion leads to, ``(n, N)``;
            ``(n, N, C)`` for C labels.
        absent: By modality which rows lack it, ``(N,)`` bool.
    """

    embeddings: dict[str, NDArray[np.float32]]
    probabilities: Floats
    absent: dict[str, NDArray[np.bool_]]


def _parameters() -> dict[str, Parameter]:
    """Parameters of the classifier: its own, then the fields of FuseConfig."""
    own = {"modalities": None, "validation_fraction": 0.2, "device": "auto"}
    fields = {
        # what is nested is None here: scikit-learn wants plain defaults
        name: None
        if isinstance(field.default, BaseModel) or field.default_factory
        else field.default
        for name, field in FuseConfig.model_fields.items()
        if name not in OF_A_CACHE
    }
    return {
        name: Parameter(name, Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**own, **fields}.items()
    }


class CM2Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify from several modalities, some of them missing, with any method of `cm2 models`.

    A row that is NaN in all columns of a modality has not got it; single NaN are unknown values,
    which the model is told of. A part of the rows given to `fit`, by group, chooses the epoch.

    Two classes of any kind, or a table of 0 and 1 for several labels.

    Attributes:
        classes_: The two classes in order, or the numbers of the labels.
        model_: The trained module, with the weights of its best epoch.
        history_: One mapping per epoch: losses, validation AUROC, figures of the copula.
        best_epoch_: The epoch that was chosen, from 1.
        copula_: What was learned about dependence (family, parameters, Kendall's tau, mixtures,
            tail dependence); None for a method without a copula.
        validation_: Rows of `fit` that chose the epoch, ``(N,)`` bool.
        n_features_in_, feature_names_in_: As everywhere in scikit-learn; a table alone has them.

    Args:
        modalities: By name the columns of the table: a slice, positions, names, or for a series a
            list with the columns of each step; no column is in two of them. None is one modality
            of all columns; for a dict of arrays it stays None.
        validation_fraction: Share of the groups that chooses the epoch, in (0, 1).
        device: auto, cpu, cuda or cuda:INDEX.
        options: The options of `cm2 fuse` that do not speak of a cache, by the same names, such as
            `model`, `copula`, `K`, `lambda_cop`, `impute`, `epochs`, `seed`; see `FuseConfig`.

    Raises:
        TypeError: An unknown option.
    """

    def __init__(self, **options: Any) -> None:
        known = _parameters()
        for name in options:
            if name not in known:
                raise TypeError(f"CM2Classifier has no parameter {name!r}; it has {[*known]}.")
        for name, parameter in known.items():
            setattr(self, name, options.get(name, parameter.default))

    __init__.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *_parameters().values()]
    )

    def fit(self, X: Any, y: Any, groups: Any = None) -> CM2Classifier:
        """Train.

        Args:
            X: A table ``(N, columns)``, NaN where unknown; or by modality an array ``(N, width)``
                or ``(N, steps, width)``.
            y: N classes of two kinds, or a table of 0 and 1 ``(N, C)`` for C labels.
            groups: Patient of each row, so that nobody is on both sides of the validation split;
                every row is its own by default.

        Raises:
            ValueError: Data that cannot be learned from, or options that cannot be meant.
        """
        with _as_value_errors():
            config, place = self._config(), choose(self.device)
            parts, y = self._parts(X, y)
            targets = self._targets(y, len(next(iter(parts.values())).values))
            held = hold_out(targets, groups, self.validation_fraction, config.seed)
            self._readings = [
                Reading.learn(name, part._replace(values=part.values[~held]))
                for name, part in parts.items()
            ]
            rows = len(targets)
            data = self._data(parts, targets, held, stay_keys(range(rows))).to(place)
            with reproducible(config.deterministic):
                state = train(config, data, InMemory(), silent, never())
                model = state.model
                members = np.arange(rows) if groups is None else np.asarray(groups)
                patients = np.unique(members, return_inverse=True)[1]
                val = data.rows("val")
                judge_best(state, data, val, patients[val])
                self.copula_ = model.describe(data.batches(val))
        self.model_ = model.cpu().eval()
        self.history_ = state.history
        self.best_epoch_ = best_epoch(state.history, config.warmup)
        self.validation_ = held
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities of the classes, ``(N, 2)``; of C labels ``(N, C)``."""
        p = 1 / (1 + np.exp(-self.decision_function(X)))
        return np.stack([1 - p, p], 1) if p.ndim == 1 else p

    def predict(self, X: Any) -> NDArray[Any]:
        """The more probable class of each row, ``(N,)``; of C labels 0 and 1, ``(N, C)``."""
        chosen = (self.decision_function(X) > 0).astype(int)
        return chosen if chosen.ndim == 2 else self.classes_[chosen]

    def decision_function(self, X: Any) -> Floats:
        """Log odds of the second class, ``(N,)``; of C labels ``(N, C)``.

        A prediction depends on no other row: random numbers of an imputation belong to the content
        of a row, and float64 leaves nothing to the size of a batch.

        Raises:
            ValueError: A row without any modality, or another table than that of `fit`.
        """
        with _as_value_errors():
            data = self._unlabelled(X)
            model = copy.deepcopy(self.model_).double()
            with reproducible(model.config.deterministic):
                outputs = forward(model, data, data.rows("all", labelled=False))
        found: Floats = torch.cat([output.logits for output in outputs]).numpy()
        return found if self._several else found[:, 0]

    def sample_missing(self, X: Any, n: int = 8, seed: int = 0) -> Draws:
        """Draw what the model fills in for absent modalities, and what it then predicts.

        The n draws of a row are embeddings in the model's own space, one completion of the row
        each. `predict_proba` averages the probabilities of `draws` such completions.

        Args:
            X: As for `predict`.
            n: Number of draws.
            seed: Seed of the draws.

        Raises:
            ValueError: The model draws nothing: its `impute` is not `marginal` or `conditional`.
        """
        with _as_value_errors():
            data = self._unlabelled(X)
            model = copy.deepcopy(self.model_).double()
            if model.config.model != "cm2" or model.config.impute not in RANDOM:
                raise ConfigError(
                    f"model = {model.config.model!r} with impute = {model.config.impute!r} draws "
                    f"nothing. Fit cm2 with impute {' or '.join(RANDOM)}."
                )
            embeddings, probabilities = _draws(model, data, n, seed)
        available = data.whole.available.numpy()
        names = [reading.name for reading in self._readings]
        return Draws(
            {name: embeddings[:, :, m] for m, name in enumerate(names)},
            probabilities if self._several else probabilities[..., 0],
            {name: ~available[:, m] for m, name in enumerate(names)},
        )

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier as one safetensors file that carries its own hash.

        Args:
            path: A name that ends with `.safetensors`.
        """
        check_is_fitted(self)
        if Path(path).suffix != ".safetensors":
            raise ValueError(f"Expected a name that ends with .safetensors, found {path}.")
        own = {name: plain(value) for name, value in self.get_params().items()}
        checkpoint.save(
            Path(path),
            self.model_.state_dict(),
            {
                "estimator": type(self).__name__,
                "options": {name: encode(value) for name, value in own.items()},
                "readings": [asdict(reading) for reading in self._readings],
                "several": self._several,
                "labels": len(self.classes_) if self._several else 1,
                "classes": [self.classes_.dtype.str, self.classes_.tolist()],
                "history": self.history_,
                "best_epoch": self.best_epoch_,
                "copula": self.copula_,
                "validation": np.flatnonzero(self.validation_).tolist(),
                "rows": len(self.validation_),
                "features": getattr(self, "n_features_in_", None),
                "names": [*getattr(self, "feature_names_in_", ())],
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> CM2Classifier:
        """Read a classifier that `save` wrote; nothing in the file is executed.

        Raises:
            IntegrityError: It is not what was written.
            ConfigError: It is another kind of checkpoint.
        """
        tensors, meta = checkpoint.load(Path(path), "Fit it again.")
        if meta.get("estimator") != cls.__name__:
            raise ConfigError(f"{path} holds no {cls.__name__}. `cm2.load_run` reads runs.")
        found = cls(**{name: decode(value) for name, value in meta["options"].items()})
        found._readings = [
            Reading(r["name"], r["view"], tuple(r["names"]), r["gaps"], tuple(r["means"]))
            for r in meta["readings"]
        ]
        specs = tuple(reading.spec for reading in found._readings)
        found.model_ = build(specs, found._config(), meta["labels"]).eval()
        found.model_.load_state_dict(tensors)
        found._several = meta["several"]
        found.classes_ = np.array(meta["classes"][1], dtype=meta["classes"][0])
        found.history_, found.best_epoch_ = meta["history"], meta["best_epoch"]
        found.copula_ = meta["copula"]
        found.validation_ = np.isin(np.arange(meta["rows"]), meta["validation"])
        if meta["features"] is not None:
            found.n_features_in_ = meta["features"]
        if meta["names"]:
            found.feature_names_in_ = np.array(meta["names"], dtype=object)
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.single_output = True
        return tags

    def _config(self) -> FuseConfig:
        options = {
            name: plain(getattr(self, name)) for name in FuseConfig.model_fields.keys() - OF_A_CACHE
        }
        return FuseConfig.of({name: v for name, v in options.items() if v is not None})

    def _parts(self, X: Any, y: Any = None) -> tuple[dict[str, Part], Any]:
        """Modalities as they were given, and the targets; `y` is None for a prediction."""
        if isinstance(X, Mapping) and not issparse(X):
            if self.modalities is not None:
                raise ConfigError("A dict of arrays names its modalities: leave modalities out.")
            return from_arrays(X), y
        options = {"dtype": np.float32, "ensure_all_finite": "allow-nan"}
        if y is None:
            X = validate_data(self, X, reset=False, **options)
        else:
            X, y = validate_data(self, X, y, multi_output=True, **options)
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        return from_table(X, self.modalities, names), y

    def _targets(self, y: Any, rows: int) -> NDArray[np.float32]:
        """Targets ``(N, C)`` of 0 and 1; sets the classes."""
        self._several = type_of_target(y, input_name="y") == "multilabel-indicator"
        if self._several:
            table = np.asarray(y, dtype=np.float32)
            self.classes_ = np.arange(table.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            self.classes_, place = np.unique(y, return_inverse=True)
            if len(self.classes_) > 2:
                raise DataError(
                    "Only binary classification is supported. The type of the target is "
                    f"multiclass: {len(self.classes_)} classes."
                )
            table = place.astype(np.float32)[:, None]
        if len(table) != rows:
            raise SchemaError(f"Expected as many targets as rows, {rows}; found {len(table)}.")
        return table

    def _data(
        self,
        parts: Mapping[str, Part],
        targets: NDArray[np.float32],
        held: NDArray[np.bool_],
        keys: Keys,
    ) -> FusionData:
        read = {reading.name: reading.read(parts[reading.name]) for reading in self._readings}
        has = np.stack([there for _, _, there in read.values()], 1)
        if not has.any(1).all():
            raise DataError(
                f"Row {np.flatnonzero(~has.any(1))[0]} and perhaps others have no modality at "
                "all: every column is NaN. Leave such rows out."
            )
        return assemble(
            [reading.spec for reading in self._readings],
            {name: values for name, (values, _, _) in read.items()},
            {name: mask for name, (_, mask, _) in read.items()},
            has,
            torch.from_numpy(targets),
            tuple(str(label) for label in range(targets.shape[1])),
            {"split": np.where(held, "val", "train").tolist()},
            keys,
        )

    def _unlabelled(self, X: Any) -> FusionData:
        """Rows to predict; their random numbers follow from what they hold."""
        check_is_fitted(self)
        parts, _ = self._parts(X)
        rows = len(next(iter(parts.values())).values)
        for reading in self._readings:
            if reading.name not in parts:  # absent everywhere
                empty = np.full((rows, 1, len(reading.means)), np.nan, np.float32)
                parts[reading.name] = Part(reading.view, empty, reading.names)
        if unread := parts.keys() - {reading.name for reading in self._readings}:
            raise SchemaError(f"Modalities {sorted(unread)} were not there in fit.")
        given = [parts[reading.name].values for reading in self._readings]
        keys = stay_keys(digests(given) if self.model_.noise(training=False) else range(rows))
        C = len(self.classes_) if self._several else 1
        unknown = np.full((rows, C), np.nan, np.float32)
        data = self._data(parts, unknown, np.zeros(rows, bool), keys)
        x = {name: values.double() for name, values in data.whole.x.items()}
        return replace(data, whole=replace(data.whole, x=x))


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """Raise what scikit-learn expects where data or options cannot be meant."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error


@torch.no_grad()
def _draws(
    model: FusionModel, data: FusionData, n: int, seed: int
) -> tuple[NDArray[np.float32], Floats]:
    """Completed embeddings ``(n, N, M, D)`` and the probabilities of each, ``(n, N, C)``."""
    shapes = {name: (n, *shape[1:]) for name, shape in model.noise(training=False).items()}
    hyper, tokens, p = Hyper.of(model.config), [], []
    for batch in data.batches(data.rows("all", labelled=False), noise=shapes, seed=seed):
        with precision(model.config, data.device):
            outputs = [
                model(
                    replace(batch, noise={k: u[:, i : i + 1] for k, u in batch.noise.items()}),
                    hyper,
                )
                for i in range(n)
            ]
        tokens.append(torch.cat([output.extras["tokens"] for output in outputs]))
        p.append(torch.stack([output.logits.double().sigmoid() for output in outputs]))
    return torch.cat(tokens, 1).float().numpy(), torch.cat(p, 1).numpy()


__all__ = ["CM2Classifier", "Draws"]
