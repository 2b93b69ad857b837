"""What settings keep to themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.settings import load_settings


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("search_password", "s3cret", "s3cret"),
        ("bus_url", "amqp://me:s3cr%2Fet@host/", "s3cr%2Fet"),
        ("bus_url", "amqp://me:s3cr%2Fet@host/", "s3cr/et"),
        ("metadata_url", "postgresql://host/db?user=me&password=s3c%25et", "s3c%et"),
        ("metadata_url", "postgresql://host/db?user=me&password=s3c%25et", "s3c%25et"),
        ("metadata_url", "postgresql://me:s3[ret@host/db", "postgresql://me:s3[ret@host/db"),
    ],
)
def test_no_secret_of_the_settings_is_left_in_a_text(
    tmp_path: Path, name: str, value: str, secret: str
) -> None:
    """A client may decode the address before it puts it into its error."""
    settings = load_settings(tmp_path, {}, **{name: value})

    assert settings.censored(f"at {secret}: refused") == "at …: refused"


def test_a_text_without_secrets_stays_as_it_is(tmp_path: Path) -> None:
    """A secret that is not set is no text to look for."""
    settings = load_settings(tmp_path, {}, bus_url="amqp://host/", cache_password="")

    assert settings.censored("amqp://host/ refused") == "amqp://host/ refused"
