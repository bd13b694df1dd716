from __future__ import annotations

import hashlib
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keys import Key, KeyRing, Role, line_of, new_secret, parse_keys
from service.errors import SettingsError

DIGEST = hashlib.sha256(b"secret").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def test_a_file_lists_names_digests_and_options() -> None:
    text = f"""
# a comment
shop  sha256:{DIGEST}   rate=2.5 burst=7

grafana\tsha256:{OTHER} read-only
"""
    assert parse_keys(text, Role.PREDICT) == [
        Key("shop", bytes.fromhex(DIGEST), Role.PREDICT, 2.5, 7.0),
        Key("grafana", bytes.fromhex(OTHER), Role.READ),
    ]


@pytest.mark.parametrize(
    ("options", "rate", "burst"), [("", math.inf, math.inf), ("rate=50", 50, 50), ("rate=0.1", 0.1, 1)]
)
def test_the_burst_is_a_seconds_worth_and_at_least_one_query(options: str, rate: float, burst: float) -> None:
    (key,) = parse_keys(f"shop sha256:{DIGEST} {options}", Role.ADMIN)
    assert (key.role, key.rate, key.burst) == (Role.ADMIN, rate, burst)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected a line 'NAME sha256:DIGEST .*' for each key, found no key"),
        ("# nobody", "found no key"),
        ("shop", "line 1: expected a line 'NAME sha256:DIGEST"),
        (f"\n\nshop {DIGEST}", "line 3: .* found no digest of 64 hexadecimal digits after the name"),
        (f"shop sha256:{DIGEST[:-1]}", "found no digest of 64"),
        (f"shop sha256:{DIGEST.upper()}", "found no digest of 64"),
        (f"sh/op sha256:{DIGEST}", "expected a name of at most 64 letters"),
        (f"{'x' * 65} sha256:{DIGEST}", "expected a name of at most 64 letters"),
        (f"shop sha256:{DIGEST} admin", "found an option that is none of these"),
        (f"shop sha256:{DIGEST} rate=0", "found an option that is none of these"),
        (f"shop sha256:{DIGEST} rate=nan", "found an option that is none of these"),
        (f"shop sha256:{DIGEST} rate=-1", "found an option that is none of these"),
        (f"shop sha256:{DIGEST} rate=3 burst=0.5", "expected a burst of at least 1 query, found 0.5"),
        (f"shop sha256:{DIGEST} burst=3", "expected a rate beside the burst"),
        (f"shop sha256:{DIGEST}\nshop sha256:{OTHER}", "line 2: expected distinct names, found shop twice"),
        (
            f"shop sha256:{DIGEST}\nother sha256:{DIGEST}",
            "line 2: expected a key of its own for other, found that of shop",
        ),
    ],
)
def test_a_wrong_line_is_named_without_its_secrets(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as caught:
        parse_keys(text, Role.PREDICT)
    assert DIGEST not in str(caught.value)


def test_an_admin_key_cannot_be_read_only() -> None:
    with pytest.raises(SettingsError, match="found an option that is none of these"):
        parse_keys(f"shop sha256:{DIGEST} read-only", Role.ADMIN)


@given(st.text(max_size=300))
def test_no_text_is_more_than_wrong(text: str) -> None:
    with suppress(SettingsError):
        assert parse_keys(text, Role.PREDICT)


@given(st.sets(st.binary(max_size=50), min_size=1), st.binary(max_size=50))
def test_a_key_is_found_by_what_was_sent_and_by_nothing_else(secrets: set[bytes], sent: bytes) -> None:
    ring = KeyRing(Key(secret.hex(), hashlib.sha256(secret).digest(), Role.READ) for secret in secrets)
    assert len(ring) == len(secrets)
    for secret in (*secrets, sent):
        found = ring.find(secret)
        assert (found and found.name) == (secret.hex() if secret in secrets else None)


def test_a_new_key_is_long_and_its_line_is_one_of_a_file() -> None:
    secret = new_secret()
    assert len(secret) > 40
    assert secret != new_secret()
    line = line_of("shop", secret, ["read-only"])
    assert secret not in line
    found = KeyRing(parse_keys(line, Role.PREDICT)).find(secret.encode())
    assert found is not None
    assert (found.name, found.role) == ("shop", Role.READ)
    with pytest.raises(SettingsError, match="expected a name"):
        line_of("a/b", secret, [])
