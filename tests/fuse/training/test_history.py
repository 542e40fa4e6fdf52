from __future__ import annotations

import numpy as np
import pytest
import torch

from cm2.errors import DataError
from cm2.fuse.config import FuseConfig
from cm2.fuse.training.checks import require_trainable, warnings
from cm2.fuse.training.history import best_epoch, ended, learning_rate


def epochs(*rows: tuple[float | None, float]) -> list[dict[str, float | int | None]]:
    return [
        {"epoch": i, "val_auroc": auroc, "val_loss": loss}
        for i, (auroc, loss) in enumerate(rows, 1)
    ]


def test_the_best_epoch_has_the_highest_auroc_then_the_lowest_loss_then_comes_first() -> None:
    assert best_epoch(epochs((0.7, 1), (0.8, 3), (0.8, 2), (0.8, 2)), 1) == 3


def test_without_auroc_the_loss_decides() -> None:
    assert best_epoch(epochs((None, 3), (None, 1), (None, 2)), 1) == 2


def test_epochs_before_the_end_of_warmup_are_no_candidates() -> None:
    assert best_epoch(epochs((0.9, 1), (0.8, 1), (0.7, 1)), 2) == 2
    assert best_epoch(epochs((0.9, 1)), 2) == 0


def test_training_ends_when_patience_is_exhausted_or_epochs_are() -> None:
    config = FuseConfig(patience=2, epochs=4)
    history = epochs((0.9, 1), (0.8, 1), (0.8, 1), (0.95, 1))
    assert [ended(history[:n], config) for n in range(5)] == [False, False, False, True, True]
    assert ended(history, FuseConfig(patience=9, epochs=4))


def test_the_plateau_schedule_is_that_of_torch() -> None:
    losses = np.random.default_rng(0).normal(1, 0.1, 80) * np.linspace(2, 1, 80)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=10)
    config = FuseConfig(lr=0.1, scheduler="plateau")
    history = epochs(*[(0.5, float(loss)) for loss in losses])
    for n, loss in enumerate(losses, 1):
        theirs.step(loss)
        assert learning_rate(history[:n], config) == pytest.approx(theirs.get_last_lr()[0])
    assert learning_rate(history, config) < 0.1
    assert learning_rate(history, FuseConfig(lr=0.1)) == 0.1


def counts(
    train: int = 200,
    positives: int = 60,
    val: tuple[int, int] = (50, 20),
    test: tuple[int, int] = (50, 20),
) -> dict[str, dict[str, object]]:
    def part(n: int, events: int) -> dict[str, object]:
        targets = {"ihm": {"n": n, "positives": events}}
        return {"n": n, "positives": events, "available": {"ehr": n}, "targets": targets}

    return {"train": part(train, positives), "val": part(*val), "test": part(*test)}


def test_enough_of_everything_is_no_cause_for_words() -> None:
    require_trainable(counts(), "ihm")
    assert warnings(counts(), []) == []


def test_the_rarer_class_counts_as_the_events() -> None:
    many = counts(positives=195, val=(50, 49), test=(50, 50))
    (said,) = warnings(many, [])
    assert (
        "Only 6 stays without an event among 300 stays (train 5 of 200, val 1 of 50, test 0 of 50)"
        in said
    )
    assert "prove nothing" in said


def test_all_positive_training_stays_are_an_error() -> None:
    with pytest.raises(DataError, match="same target"):
        require_trainable(counts(positives=200), "ihm")


def test_the_rarest_label_decides_what_is_said() -> None:
    two = counts(train=600, positives=300)
    for part in two.values():
        part["targets"]["rare"] = {"n": part["n"], "positives": 2}  # type: ignore[index]
    (said,) = warnings(two, [])
    assert "Only 6 events of label 'rare' among 700 stays (train 2 of 600, val 2 of 50" in said


def test_a_label_without_two_classes_in_training_is_named() -> None:
    two = counts()
    two["train"]["targets"]["none"] = {"n": 200, "positives": 0}  # type: ignore[index]
    with pytest.raises(DataError, match="label 'none'"):
        require_trainable(two, "ihm")


def test_balanced_classes_are_said_to_shift_probabilities() -> None:
    (said,) = warnings(counts(), [], balanced=True)
    assert "recalibrate" in said


def test_the_cosine_schedule_is_that_of_torch_and_a_function_of_the_history() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    config = FuseConfig(lr=0.1, scheduler="cosine", epochs=12)
    history: list[dict[str, float | int | None]] = []
    for epoch in range(12):
        assert learning_rate(history, config) == pytest.approx(optimizer.param_groups[0]["lr"])
        history.append({"epoch": epoch + 1, "val_loss": 1.0, "val_auroc": 0.5})
        optimizer.step()
        theirs.step()
    assert learning_rate(history, config) == pytest.approx(0.0)
