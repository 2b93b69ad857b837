"""`penstock key …`: the keys under which credentials are kept."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import Annotated

import typer

from penstock.cli.console import JsonFlag, out, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, SettingsOption, settings_of

app = typer.Typer(
    no_args_is_help=True, help="List, renew and forget the keys that credentials are kept under."
)


@app.command("list")
def list_(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the keys by their ids, and what is under each; the one that encrypts is first."""
    from penstock.metadata.keys import keyring_of
    from penstock.metadata.store import KeyNeeded, store_of

    settings = settings_of(home, settings_file)
    keys = [key.id for key in keyring_of(settings).held()]
    with closing(store_of(settings)) as store:
        needed = store.keys_needed()
    none = KeyNeeded([], [])
    uses = ["encrypts", *("decrypts" for _ in keys[1:])] if keys else []
    rows = [*zip(keys, uses, strict=True)]
    rows += [(key, "missing") for key in sorted(needed) if key not in keys]
    if as_json:
        print_json(
            [{"id": key, "use": use, **needed.get(key, none)._asdict()} for key, use in rows]
        )
    elif rows:
        table = [(key, use, str(needed.get(key, none))) for key, use in rows]
        print_table(["key", "use", "needed by"], table, out())
    else:
        out().print("no key yet: 'penstock up' or 'penstock key rotate' makes the first one")


@app.command()
def rotate(
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a new key and put every credential under it; old ones are kept until you forget them.

    Nothing has to be stopped. Where keys are the setting credential_keys, its first one is used.
    """
    from penstock.metadata import rotation

    settings = settings_of(home, settings_file)
    key_id, count = rotation.rotate(settings, chance=secrets.token_bytes)
    if as_json:
        print_json({"key": key_id, "credentials": count})
    else:
        out().print(f"{count:,} credentials are under the key {key_id}")


@app.command()
def forget(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `key list` shows it.")],
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a key that nothing is under any more; refused while a destination needs it."""
    from penstock.metadata import rotation

    rotation.forget(settings_of(home, settings_file), key_id)
    print_json({"forgotten": key_id}) if as_json else out().print(f"forgot {safe(key_id)}")
