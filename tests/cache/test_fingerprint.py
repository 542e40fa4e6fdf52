from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.cache.fingerprint import canonical_json, fingerprint
from cm2.errors import ConfigError

text = st.text(st.characters(codec="utf-8"))
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
)


@given(values)
def test_canonical_json_is_json_that_reads_back_as_the_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(text, values, min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical_json(turned) == canonical_json(value)


@given(values, values)
def test_different_values_have_different_texts(a: object, b: object) -> None:
    def exact(value: object) -> object:
        """Tell 1, 1.0, True and -0.0 apart, which compare equal in Python."""
        if isinstance(value, dict):
            return {key: exact(item) for key, item in value.items()}
        return [exact(item) for item in value] if isinstance(value, list) else repr(value)

    assert (canonical_json(a) == canonical_json(b)) == (exact(a) == exact(b))


def test_the_text_is_fixed_for_ever() -> None:
    value = {"b": [1, 1.0, True, None], "a": {"é": "\n", "": -0.5}, "c": (1e-6, 10**20)}
    expected = '{"a":{"":-0.5,"é":"\\n"},"b":[1,1.0,true,null],"c":[1e-06,100000000000000000000]}'
    assert canonical_json(value) == expected.encode()
    assert fingerprint({"a": 1}) == (
        "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    )


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [1, math.nan]}, r"value\.a\[1\].*finite"),
        ({"a": math.inf}, r"value\.a.*finite"),
        ({1: "a"}, "text as key, found 1"),
        ({"a": {1, 2}}, r"value\.a.*builtins\.set"),
        ({"a": np.float32(1)}, r"value\.a.*numpy\.float32"),
        (b"bytes", "builtins.bytes"),
        ("\ud800", "character pair"),
        ({"\udfff": 1}, "character pair"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_found(value: object, where: str) -> None:
    with pytest.raises(ConfigError, match=where):
        canonical_json(value)


def test_the_hash_seed_does_not_matter() -> None:
    code = (
        "from cm2.cache.fingerprint import fingerprint;"
        "print(fingerprint({k: list('abc') for k in 'zyxw'}))"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert prints == {fingerprint({k: list("abc") for k in "wxyz"}) + "\n"}
