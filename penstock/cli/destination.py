"""`penstock destination …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.complete import destinations
from penstock.cli.console import DONE, FAILED, JsonFlag, err, out, print_json, print_table, safe
from penstock.cli.home import DEFAULT_HOME, HomeOption, connect
from penstock.errors import BadRequest
from penstock.vocabulary import Kind

if TYPE_CHECKING:
    from penstock.contract.destinations import ChangedDestination, DestinationTold

app = typer.Typer(no_args_is_help=True, help="Name, try, change and list the places replays go to.")

NewName = Annotated[str, typer.Argument(help="The destination's name.")]
Name = Annotated[str, typer.Argument(help="The destination's name.", autocompletion=destinations)]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        help="HTTP: 'Name: value' for every event, or 'X-Id: {event.id}'; the value is never "
        "shown again."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        help="name=value, as the kind has it: method, signing (standard, stripe, github), "
        "token_url, client_id, scope, client_auth, "
        "compare_url, compare (status, body); "
        "partition, timestamps, tls, sasl; exchange, routing_key; region, group; "
        "format (ndjson, parquet)."
    ),
]
CaFile = Annotated[
    Path | None, typer.Option(help="Certificates (PEM) to trust instead of the system's.")
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        help="The file with user:password (Kafka, RabbitMQ), KEY_ID:SECRET_KEY (SQS) or what "
        "signs (HTTP: one or two lines, the newest first); - asks or reads standard input. "
        "The environment's PENSTOCK_SECRET does too."
    ),
]
CredentialFiles = Annotated[
    list[str] | None,
    typer.Option(
        help="HTTP: NAME=FILE for client_secret (with the option token_url), "
        "client_certificate and client_key (PEM); may be given several times."
    ),
]


@app.command()
def create(
    name: NewName,
    url: Annotated[
        str,
        typer.Argument(
            help="http(s)://…, kafka://host:port,…/topic, amqp(s)://host:port/vhost, "
            "sqs://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE, collection://NAME, file://NAME or "
            "tunnel://NAME; "
            "without credentials."
        ),
    ],
    header: Headers = None,
    option: Options = None,
    ca_file: CaFile = None,
    secret_file: SecretFile = None,
    credential_file: CredentialFiles = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Sends per second at most, of all replays to it together."),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Where the URL does not say it: sqs with https://….")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Name a destination."""
    options = options_of(option, ca_file)
    with connect(home) as client:
        made = client.create_destination(
            name,
            url,
            kind=kind,
            headers=[parse_header(one) for one in header or []],
            options=options,
            secret=read_secret(secret_file),
            credentials=dict(parse_credential(one) for one in credential_file or []),
            rate=rate,
        )
    print_json(made) if as_json else out().print(f"created {safe(f'{made.name} → {made.url}')}")


@app.command()
def change(
    name: Name,
    rate: Annotated[
        str | None,
        typer.Option(help="Sends per second at most, of all replays to it together; or none."),
    ] = None,
    header: Headers = None,
    option: Options = None,
    ca_file: CaFile = None,
    secret_file: SecretFile = None,
    credential_file: CredentialFiles = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="The name of a header, an option or a credential that it has no more, or secret."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Change what a destination is beside its address; what is left out stays as it is."""
    changed = change_of(
        rate=read_rate(rate),
        headers=[parse_header(one) for one in header or []],
        options=options_of(option, ca_file),
        secret=read_secret(secret_file),
        credentials=dict(parse_credential(one) for one in credential_file or []),
        without=without,
    )
    with connect(home) as client:
        found = client.change_destination(name, changed)
    if as_json:
        print_json(found)
    else:
        out().print(
            f"changed {safe(found.name)}: {safe(', '.join(shown(found)) or 'nothing left')}"
        )


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the destinations."""
    with connect(home) as client:
        found = client.destinations()
    if as_json:
        print_json(found)
    elif found:
        rows = [(one.name, one.kind, one.url, ", ".join(shown(one))) for one in found]
        print_table(["name", "kind", "address", "with"], rows, out())
    else:
        out().print("no destinations yet: 'penstock destination create NAME URL'")


@app.command()
def show(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show a destination, without its credentials."""
    with connect(home) as client:
        found = client.destination(name)
    if as_json:
        print_json(found)
    else:
        rows = [("kind", found.kind), ("address", found.url), ("with", ", ".join(shown(found)))]
        print_table([name, ""], rows, out())


@app.command("test")
def try_(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Send one small event to HTTP; look whether any other kind would take events."""
    with connect(home) as client:
        tried = client.try_destination(name)
    if as_json:
        print_json(tried)
    elif tried.delivered and not tried.sent:
        out().print(f"{name} is there and takes events; none was sent")
        for number, one in enumerate(tried.found):
            role = "waiting behind it" if number else "events go to it"
            at = one.since.strftime("%Y-%m-%dT%H:%M:%SZ")
            out().print(safe(f"  {one.bus} of {one.peer}, connected since {at}: {role}"))
    elif tried.delivered:
        out().print(f"{name} answered {tried.status} in {tried.seconds * 1000:.0f} ms")
    else:
        what = "not delivered" if tried.sent else "not ready"
        err().print(f"[red]{what}[/]: {safe(tried.reason)}")
    raise typer.Exit(DONE if tried.delivered else FAILED)


@app.command()
def delete(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Forget a destination."""
    with connect(home) as client:
        client.delete_destination(name)
    print_json({"deleted": name}) if as_json else out().print(f"deleted {name}")


def change_of(**values: object) -> ChangedDestination:
    """Answer what is to be changed; raise `BadRequest` where that is nothing.

    A rate of 0 is none any more.
    """
    from penstock.client.wire import asked
    from penstock.contract.destinations import ChangedDestination

    given = {name: value for name, value in values.items() if value not in (None, [], {})}
    if not given:
        raise BadRequest(
            "say what is to change: --rate, --header, --option, --ca-file, --secret-file, "
            "--credential-file or --without"
        )
    none = given.get("rate") == 0
    if none:
        del given["rate"]
    change = asked(ChangedDestination, **given)
    return change.model_copy(update={"rate": None}) if none else change


def read_rate(text: str | None) -> float | None:
    """Read a number, or ``none`` as 0; raise `BadRequest`."""
    if text is None:
        return None
    try:
        return 0.0 if text == "none" else float(text)
    except ValueError:
        raise BadRequest(f"{text!r} is no rate: write a number of sends per second, or none") from (
            None
        )


def options_of(option: list[str] | None, ca_file: Path | None) -> dict[str, object]:
    """Answer the options that were given, with the certificates to trust."""
    options: dict[str, object] = dict(parse_option(one) for one in option or [])
    if ca_file is not None:
        options["ca"] = text_of(ca_file)
    return options


def parse_header(text: str) -> tuple[str, str]:
    """Read ``Name: value``; the message of a refusal leaves the value out."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise BadRequest("a header is written 'Name: value'")
    return name.strip(), value.strip()


def shown(one: DestinationTold) -> list[str]:
    """Answer what a destination has beside its address; of secrets, that they are there."""
    options = [
        f"{name}={value if name != 'ca' else '…'}"
        for name, value in one.options.items()
        if value is not None
    ]
    secret = ["a secret"] if one.secret else []
    rate = [f"{one.rate:g} a second"] if one.rate else []
    return [*one.headers, *options, *secret, *one.credentials, *rate]


def parse_option(text: str) -> tuple[str, object]:
    """Read ``name=value``; true and false are what they say."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadRequest("an option is written name=value")
    return name, {"true": True, "false": False}.get(value, value)


def parse_credential(text: str) -> tuple[str, str]:
    """Read ``NAME=FILE``, and the file."""
    name, equals, file = text.partition("=")
    if not equals or not name or not file:
        raise BadRequest("a credential is given as NAME=FILE")
    return name, text_of(Path(file))


def text_of(file: Path) -> str:
    """Answer the text of a file, without blanks around it; raise `BadRequest` where it is none."""
    try:
        return file.read_text().strip()
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is no text") from None


def read_secret(file: Path | None) -> str | None:
    """Answer the secret of a file, of standard input or of the environment, never of a flag."""
    if file is None:
        return os.environ.get("PENSTOCK_SECRET")
    if str(file) != "-":
        return text_of(file)
    if sys.stdin.isatty():
        text: str = typer.prompt("secret", hide_input=True, err=True)
        return text
    return sys.stdin.readline().strip()
