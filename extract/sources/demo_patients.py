"""Who is in the synthetic hospital: latent severities, stays, times and outcomes.

Every ICU stay has one severity per modality, u in (0, 1)^3, drawn from a Frank copula with a known
parameter. Death in hospital and readmission depend on the three normal scores and on the
interaction of the first two, so that no modality suffices alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.random import Generator
from scipy.special import expit, ndtri

THETA = 5.0
SEVERITIES = ("ehr", "cxr", "report")
UNITS = (
    "Medical Intensive Care Unit (MICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Coronary Care Unit (CCU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Trauma SICU (TSICU)",
)
RACES = (
    "WHITE",
    "WHITE",
    "WHITE",
    "BLACK/AFRICAN AMERICAN",
    "HISPANIC/LATINO - PUERTO RICAN",
    "ASIAN",
    "OTHER",
    "UNKNOWN",
)
_KINDS = ("clean", "short", "transfer", "pair", "silent")
_KIND_SHARES = (0.81, 0.09, 0.05, 0.04, 0.01)


@dataclass(frozen=True)
class Patient:
    """One row of hosp/patients."""

    subject_id: int
    gender: str
    anchor_age: int
    anchor_year: int
    race: str
    dod: datetime | None


@dataclass(frozen=True)
class Admission:
    """One row of hosp/admissions."""

    subject_id: int
    hadm_id: int
    admitted: datetime
    discharged: datetime
    died: datetime | None


@dataclass(frozen=True)
class Stay:
    """One row of icu/icustays, with what the stay shows in each modality.

    Args:
        kind: clean (reaches the task cohort), short (under 48 hours), transfer (changes the unit),
            pair (one of two stays of an admission), silent (nothing was charted).
        z: Normal scores of the severities in the order of `SEVERITIES`.
    """

    subject_id: int
    hadm_id: int
    stay_id: int
    units: tuple[str, str]
    entered: datetime
    left: datetime
    kind: str
    z: tuple[float, float, float]

    @property
    def hours(self) -> float:
        """Length of the stay in hours."""
        return (self.left - self.entered).total_seconds() / 3600


@dataclass(frozen=True)
class Hospital:
    """The whole synthetic population; `uniforms` are the latent severities of `stays`, [n, 3]."""

    patients: list[Patient]
    admissions: list[Admission]
    stays: list[Stay]
    uniforms: np.ndarray


def frank_uniforms(rng: Generator, count: int, theta: float) -> np.ndarray:
    """Draw from the exchangeable three-dimensional Frank copula (Marshall and Olkin 1988).

    Args:
        rng: Source of randomness.
        count: Number of rows.
        theta: Dependence, positive.

    Returns:
        Uniforms, shape [count, 3].
    """
    p = -np.expm1(-theta)
    frailty = rng.logseries(p, size=(count, 1))
    return np.asarray(-np.log1p(-p * np.exp(-rng.exponential(size=(count, 3)) / frailty)) / theta)


def death_probability(z: np.ndarray) -> np.ndarray:
    """Probability of death in hospital given the normal scores, [..., 3] -> [...]."""
    e, c, r = z[..., 0], z[..., 1], z[..., 2]
    return np.asarray(expit(-2.6 + 0.9 * e + 1.8 * c + 0.3 * r + 0.6 * e * c))


def readmission_probability(z: np.ndarray) -> np.ndarray:
    """Probability that a survivor comes back within 30 days, [..., 3] -> [...]."""
    e, c, r = z[..., 0], z[..., 1], z[..., 2]
    return np.asarray(expit(-1.9 + 0.6 * e + 0.9 * c + 0.7 * r + 0.3 * e * c))


class _Numbers:
    """Distinct identifiers with a fixed first digit and eight digits in all."""

    def __init__(self, rng: Generator, first_digit: int) -> None:
        self._rng, self._first, self._seen = rng, first_digit * 10_000_000, set[int]()

    def next(self) -> int:
        while True:
            number = self._first + int(self._rng.integers(10_000_000))
            if number not in self._seen:
                self._seen.add(number)
                return number


class _Builder:
    def __init__(self, seed: int, theta: float) -> None:
        self.rng = np.random.default_rng([seed, 1])
        self.latent = np.random.default_rng([seed, 2])
        numbers = np.random.default_rng([seed, 3])
        self.subject_ids, self.hadm_ids, self.stay_ids = (_Numbers(numbers, d) for d in (1, 2, 3))
        self.theta = theta
        self.patients: list[Patient] = []
        self.admissions: list[Admission] = []
        self.stays: list[Stay] = []
        self.uniforms: list[np.ndarray] = []

    def hours(self, low: float, high: float) -> timedelta:
        return timedelta(seconds=int(3600 * self.rng.uniform(low, high)))

    def severity(self) -> np.ndarray:
        u = frank_uniforms(self.latent, 1, self.theta)[0]
        self.uniforms.append(u)
        return np.asarray(ndtri(u))

    def stay(
        self, subject: int, hadm: int, entered: datetime, left: datetime, kind: str, z: np.ndarray
    ) -> None:
        unit = UNITS[int(self.rng.integers(len(UNITS)))]
        other = unit
        while kind == "transfer" and other == unit:
            other = UNITS[int(self.rng.integers(len(UNITS)))]
        self.stays.append(
            Stay(
                subject,
                hadm,
                self.stay_ids.next(),
                (unit, other),
                entered,
                left,
                kind,
                (float(z[0]), float(z[1]), float(z[2])),
            )
        )

    def admission(self, subject: int, admitted: datetime, kind: str) -> tuple[Admission, float]:
        """Add an admission with its ICU stay or stays; return it and its readmission chance."""
        hadm = self.hadm_ids.next()
        z = self.severity()
        entered = admitted + self.hours(0.5, 20)
        length = (
            self.hours(12, 46) if kind == "short" else self.hours(50, 60 + 130 * self.rng.random())
        )
        left = entered + length
        discharged = left + self.hours(20, 150)
        died = None
        if kind != "pair" and self.rng.random() < death_probability(z):
            in_unit = kind == "short" or self.rng.random() < 0.6
            died = left if in_unit else left + self.hours(1, 60)
            discharged = died
        self.stay(subject, hadm, entered, left, kind, z)
        if kind == "pair":
            again = left + self.hours(5, 15)
            self.stay(subject, hadm, again, again + self.hours(20, 80), kind, self.severity())
            discharged = max(discharged, again + timedelta(days=4))
        admission = Admission(subject, hadm, admitted, discharged, died)
        self.admissions.append(admission)
        return admission, float(readmission_probability(z))

    def ward_admission(self, subject: int, admitted: datetime) -> Admission:
        discharged = admitted + self.hours(30, 200)
        admission = Admission(subject, self.hadm_ids.next(), admitted, discharged, None)
        self.admissions.append(admission)
        return admission

    def patient(self, wanted: int) -> int:
        """Add one patient with at most two ICU admissions; return the number of clean stays."""
        rng, subject = self.rng, self.subject_ids.next()
        year = int(rng.integers(2110, 2200))
        admitted = datetime(year, 1, 1) + timedelta(minutes=int(rng.integers(300 * 24 * 60)))
        kind = str(rng.choice(_KINDS, p=_KIND_SHARES))
        last, back = self.admission(subject, admitted, kind)
        clean = int(kind == "clean")
        if last.died is None:
            soon = rng.random() < back
            gap = self.hours(36, 28 * 24) if soon else self.hours(40 * 24, 250 * 24)
            if soon and (rng.random() < 0.3 or clean >= wanted):
                last = self.ward_admission(subject, last.discharged + gap)
            elif soon or (rng.random() < 0.08 and clean < wanted):
                kind = "clean" if rng.random() < 0.8 and clean < wanted else "short"
                last, _ = self.admission(subject, last.discharged + gap, kind)
                clean += int(kind == "clean")
        dod = last.died
        if dod is None and rng.random() < 0.1:  # died after discharge: no death in hospital
            dod = last.discharged + self.hours(3 * 24, 300 * 24)
        self.patients.append(
            Patient(
                subject,
                "F" if rng.random() < 0.45 else "M",
                int(np.clip(rng.normal(64, 15), 18, 91)),
                year,
                RACES[int(rng.integers(len(RACES)))],
                dod,
            )
        )
        return clean


def build_hospital(stays: int, seed: int, theta: float = THETA) -> Hospital:
    """Draw patients until `stays` of their ICU stays reach the 48 h task cohort.

    Args:
        stays: Stays in the task cohort; about a sixth more exist, which the cohort rules drop.
        seed: Seed of every random number.
        theta: Parameter of the Frank copula of the latent severities.
    """
    builder = _Builder(seed, theta)
    clean = 0
    while clean < stays:
        clean += builder.patient(stays - clean)
    return Hospital(builder.patients, builder.admissions, builder.stays, np.stack(builder.uniforms))
