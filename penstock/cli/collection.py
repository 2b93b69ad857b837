"""`penstock collection …`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from penstock.cli import rewriting
from penstock.cli.complete import collections
from penstock.cli.console import JsonFlag, err, out, print_json, print_table, safe, table
from penstock.cli.destination import read_secret
from penstock.cli.home import (
    DEFAULT_HOME,
    HomeOption,
    SettingsOption,
    command,
    connect,
    settings_of,
)
from penstock.cli.moments import (
    FOREVER,
    SinceOption,
    UntilOption,
    parse_days,
    parse_moment,
    utc_now,
)
from penstock.errors import BadRequest

if TYPE_CHECKING:
    from penstock.client import FormatOptions
    from penstock.contract.formats import FormatTold
    from penstock.contract.schema import Schema, VersionTold
    from penstock.contract.stats import StatsTold
    from penstock.contract.trials import TrialTold

_BAR_WIDTH = 30

_FULL = "columns are full: further fields are misfits"

_CONTRACTS = {
    "evolve": "a leaf without a column gets one if it can, else it is kept beside them as a misfit",
    "freeze": "no new columns; a leaf without a column is kept beside them as a misfit",
    "quarantine": "no new columns; an event with a leaf without a column goes to quarantine",
    "drop_value": "no new columns; a leaf without a column is in the payload only",
}

app = typer.Typer(no_args_is_help=True, help="Create, look at, pause and resume collections.")

app.command()(rewriting.retype)
app.command()(rewriting.rebuild)

NewName = Annotated[str, typer.Argument(help="The collection's name.")]
TryFlag = Annotated[
    bool, typer.Option("--try", help="Change nothing; say what past events would become.")
]
SampleOption = Annotated[
    int | None,
    typer.Option(min=1, help="Try about so many events, spread over the time; else all."),
]
Name = Annotated[str, typer.Argument(help="The collection's name.", autocompletion=collections)]


@app.command()
def create(
    name: NewName,
    contract: Annotated[
        str,
        typer.Option(
            help="A leaf without a column gets one (evolve), is a misfit (freeze), keeps its event "
            "out (quarantine) or is in the payload only (drop_value)."
        ),
    ] = "evolve",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="What its payloads are: json, or plain for any bytes; others by "
            "'penstock collection format'.",
        ),
    ] = "json",
    notes: Annotated[str, typer.Option(help="What it is for.")] = "",
    allow_loops: Annotated[
        bool,
        typer.Option("--allow-loops", help="Take back what a replay took from this collection."),
    ] = False,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Log partitions, on Kafka; else as the setting says.")
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="DAYS", help="How long rows are kept, as 90d.")
    ] = FOREVER,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Create a collection, and a token that may send events to it; the token is shown once."""
    with connect(home) as client:
        made = client.create_collection(
            name,
            contract=contract,
            format=format_,
            notes=notes,
            allow_loops=allow_loops,
            partitions=partitions,
            keep_days=parse_days(keep),
            token=True,
        )
    if as_json:
        print_json(made)
        return
    out().print(f"created [bold]{made.name}[/]; this token sends events to it, keep it:")
    out().print(f"\n  {made.token}\n", markup=False)
    err().print(f"[dim]send to it: {command(home, f'send {made.name} FILE')}[/]")


@app.command("list")
def list_(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """List the collections with what they hold and what waits."""
    with connect(home) as client:
        found = client.status().collections
    if as_json:
        print_json(found)
        return
    if not found:
        out().print("no collections yet: create one with 'penstock collection create NAME'")
        return
    print_table(
        ["collection", "rows#", "quarantined#", "waiting#", "columns#", "paused"],
        [
            (one.name, one.rows, one.quarantined, one.waiting, one.columns, one.paused)
            for one in found
        ],
        out(),
    )


@app.command()
def show(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show how far landing is with a collection."""
    with connect(home) as client:
        record, status = client.collection(name), client.collection_status(name)
    if as_json:
        print_json({"collection": record, "status": status})
        return
    console = out()
    console.print(f"[bold]{record.name}[/]  {safe(record.notes)}")
    console.print(
        f"created {record.created_at:%Y-%m-%d %H:%M:%SZ}, contract {record.contract}, "
        f"format {_format_text(record.format)}"
        + (", takes replays of itself" if record.allow_loops else "")
        + (f", keeps rows {record.keep_days:,} days" if record.keep_days else "")
    )
    console.print(
        f"{status.rows:,} rows"
        + (f" ({status.duplicates:,} of them duplicates)" if status.duplicates else "")
        + f", {status.quarantined:,} open in quarantine"
        + (f" ({status.closed:,} closed)" if status.closed else "")
        + f", {status.waiting:,} waiting, {status.columns:,} columns"
        + (", [yellow]paused[/]" if status.paused else "")
    )
    if record.contract != "evolve" and not status.columns:
        console.print(
            "[yellow]it has no columns, and none will come while its contract is "
            f"{record.contract}[/]: {command(home, f'collection contract {record.name} evolve')}, "
            "send typical events, then switch back"
        )
    console.print(
        table(
            "",
            ["partition#", "log start#", "log end#", "landed up to#", "waiting#"],
            [(p.partition, p.start, p.end, p.mark, p.waiting) for p in status.partitions],
        )
    )


@app.command()
def schema(
    name: Name,
    history: Annotated[
        bool, typer.Option("--history", help="Show each change: when, what, and what caused it.")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="Also show how many rows have a value in each column.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show the discovered columns, when each came, and which event brought it."""
    with connect(home) as client:
        found = client.schema(name, fill=fill)
    if as_json:
        print_json(found)
    elif history:
        _show_history(found.versions, name, home)
    elif not found.columns:
        err().print("no columns yet: they are discovered when the first events land")
    else:
        _show_columns(found)


def _show_columns(found: Schema) -> None:
    names = ["column", "type", "since", "first in"]
    rows = [
        (one.path, one.type, one.since and f"{one.since:%Y-%m-%d %H:%M:%SZ}", one.event_id)
        for one in found.columns
    ]
    if found.rows is None:
        print_table(names, rows, out())
        return
    full = [_share(one.filled, found.rows) for one in found.columns]
    print_table(
        [*names, "rows#", "full#"],
        [
            (*row, one.filled, share)
            for row, one, share in zip(rows, found.columns, full, strict=True)
        ],
        out(),
    )
    if any(one.filled is None for one in found.columns):
        err().print("[dim]columns in lists, and those beyond the first hundred, are not counted[/]")


def _share(filled: int | None, rows: int) -> str:
    if filled is None or not rows:
        return "" if rows else "0 %"
    # Rounded down: 100 % says that every row has a value.
    return f"{filled * 1_000 // rows / 10:.1f} %"


def _show_history(versions: Sequence[VersionTold], name: str, home: Path) -> None:
    if not versions:
        err().print("no changes yet: columns are discovered when the first events land")
        return
    changes = [(version, change) for version in versions for change in version.changes]
    print_table(
        ["version#", "when", "what", "column", "before", "since then", "caused by"],
        [
            (
                version.version,
                f"{version.at:%Y-%m-%d %H:%M:%SZ}",
                _FULL if change.what == "full" else change.what,
                change.path,
                change.before,
                change.type,
                change.why or change.event_id,
            )
            for version, change in changes
        ],
        out(),
        row="change",
    )
    events = [change.event_id for _, change in changes if change.event_id]
    if events:
        see = command(home, f"event {name} {events[-1]}")
        err().print(f"[dim]see an event: {safe(see)}[/]")


@app.command()
def contract(
    name: Name,
    to: Annotated[
        str | None,
        typer.Argument(
            metavar="[evolve|freeze|quarantine|drop_value]", help="The contract from now on."
        ),
    ] = None,
    only_try: TryFlag = False,
    since: SinceOption = None,
    until: UntilOption = None,
    sample: SampleOption = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show what becomes of leaves without a column, or change it from the next batch on.

    For example: penstock collection contract hello quarantine --try --since 7d
    """
    if not only_try and (since or until or sample):
        raise BadRequest("--since, --until and --sample say what to --try a contract on")
    now = utc_now()
    with connect(home) as client:
        if only_try:
            trial = _tried(
                client.try_contract(
                    name,
                    to or client.collection(name).contract,
                    since=parse_moment(since, now),
                    until=parse_moment(until, now),
                    sample=sample,
                )
            )
            print_json(trial) if as_json else _show_trial(trial, trial.contract, name, home)
            return
        record = client.set_contract(name, to) if to else client.collection(name)
    if as_json:
        print_json(record)
        return
    meaning = _CONTRACTS.get(record.contract, "")
    out().print(f"{record.name}: [bold]{record.contract}[/], {meaning}")
    if to:
        tried = command(home, f"collection contract {record.name} {to} --try --since 7d")
        err().print(f"[dim]what past events would have become: {tried}[/]")


def _tried(trials: Iterator[TrialTold]) -> TrialTold:
    """Answer the result of a trial; meanwhile show how far it is."""
    console = err()
    if not console.is_terminal:
        return deque(trials, maxlen=1).pop()
    with Progress(BarColumn(), MofNCompleteColumn(), TextColumn("events"), console=console) as bar:
        shown = bar.add_task("", total=None)
        for trial in trials:
            bar.update(shown, completed=trial.events, total=trial.wanted)
    return trial


def _show_trial(trial: TrialTold, tried: str, name: str, home: Path) -> None:
    console = out()
    console.print(f"[bold]{tried}[/] tried on {trial.events:,} events of {safe(name)}")
    counts = [
        (trial.whole, "would be rows with a column for each leaf"),
        (trial.misfits, "would be rows with misfits"),
        (trial.dropped, "would be rows that leave something to their payload"),
        (trial.quarantined, "would go to quarantine"),
    ]
    for count, what in counts:
        console.print(f"{count:>13,}  {what}", markup=False)
    added = [one for one in trial.columns if one.what == "added"]
    if added:
        console.print(f"{len(added):>13,}  columns would be added")
    if trial.causes:
        console.print()
        print_table(
            ["what", "reason", "path", "events#", "for example"],
            [
                (
                    one.outcome,
                    one.reason,
                    one.path if one.path != "" else "(the whole document)",
                    one.events,
                    ", ".join(one.examples),
                )
                for one in trial.causes
            ],
            console,
        )
        example = trial.causes[0].examples[0]
        err().print(f"[dim]see one: {safe(command(home, f'event {name} {example}'))}[/]")
    if trial.uncounted:
        err().print(f"{trial.uncounted:,} events have further causes")


@app.command()
def grow(
    name: Name,
    partitions: Annotated[int, typer.Option(min=1, help="Log partitions from now on.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Give a collection's log more partitions, on Kafka; a key's order ends where it moves."""
    with connect(home) as client:
        record = client.grow_collection(name, partitions)
    print_json(record) if as_json else out().print(f"{record.name} has {record.partitions}")


@app.command("format")
def format_(
    name: Name,
    to: Annotated[
        str | None,
        typer.Argument(
            metavar="[FORMAT]", help="json, plain, protobuf or avro; without it, show what it is."
        ),
    ] = None,
    descriptor: Annotated[
        Path | None,
        typer.Option(
            help="The descriptor set of protobuf, as 'protoc --include_imports "
            "--descriptor_set_out' writes it; without it, the one that is known.",
        ),
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="The full name of the message that a payload is.")
    ] = None,
    envelope: Annotated[
        str,
        typer.Option(
            help="The message as a whole (deep), or another one in a field of bytes too (shallow)."
        ),
    ] = "deep",
    payload_field: Annotated[
        int | None, typer.Option(min=1, help="The number of that field.")
    ] = None,
    payload_message: Annotated[
        str | None, typer.Option(help="The full name of the message in it.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="The newest schema of avro, an .avsc file; earlier ones stay known.",
        ),
    ] = None,
    framing: Annotated[
        str | None,
        typer.Option(
            help="What is before a value of avro: nothing (datum), the fingerprint of its schema "
            "(single-object), or its id in a registry (confluent)."
        ),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="The address of a schema registry, for confluent.")
    ] = None,
    only_try: TryFlag = False,
    since: SinceOption = None,
    until: UntilOption = None,
    sample: SampleOption = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="The file with user:password or a token for the registry; - asks or reads "
            "standard input. The environment's PENSTOCK_SECRET does too."
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show what a collection's payloads are, or say what they are that land from now on.

    For example: penstock collection format hello plain --try --since 7d
    """
    given = (descriptor, message, payload_field, payload_message, schema, framing, registry)
    if to is None and (any(one is not None for one in given) or envelope != "deep" or secret_file):
        raise BadRequest("say which format: penstock collection format NAME protobuf …")
    if not only_try and (since or until or sample):
        raise BadRequest("--since, --until and --sample say what to --try a format on")
    now = utc_now()
    options: FormatOptions = {
        "descriptor": None if descriptor is None else _descriptor_of(descriptor),
        "envelope": envelope,
        "message": message,
        "payload_field": payload_field,
        "payload_message": payload_message,
        "avro_schema": None if schema is None else _text_of(schema),
        "framing": framing,
        "registry": registry,
        "registry_secret": read_secret(secret_file) if secret_file or registry else None,
    }
    with connect(home) as client:
        if only_try:
            if to is None:
                raise BadRequest("say which format to --try")
            trial = _tried(
                client.try_format(
                    name,
                    to,
                    since=parse_moment(since, now),
                    until=parse_moment(until, now),
                    sample=sample,
                    **options,
                )
            )
            print_json(trial) if as_json else _show_trial(trial, to, name, home)
            return
        record = client.collection(name) if to is None else client.set_format(name, to, **options)
    if as_json:
        print_json(record)
        return
    out().print(f"{record.name} is {_format_text(record.format)}")
    if to is not None:
        err().print("[dim]this is so for what lands from now on; rows that are there stay[/]")


def _descriptor_of(file: Path) -> bytes:
    from penstock.schema.formats.protobuf import without_comments

    return without_comments(_read(file))


def _text_of(file: Path) -> str:
    try:
        return _read(file).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is no schema (.avsc): it is no text") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadRequest(f"{file}: {error.strerror}") from None


def _format_text(told: FormatTold) -> str:
    message = f" {told.message}" if told.message else ""
    inside = (
        f", with {told.payload_message} in field {told.payload_field}"
        if told.payload_message
        else ""
    )
    if told.framing:
        many = f"{told.versions:,} schema{'' if told.versions == 1 else 's'}"
        known = [safe(told.registry)] if told.registry else []
        inside = f" ({told.framing}), with {' and '.join([*known, many])}"
    since = f", since {told.changed_at:%Y-%m-%d %H:%M:%SZ}" if told.changed_at else ""
    return f"{told.name}{message}{inside}{since}"


@app.command("keep")
def keep_(
    name: Name,
    keep: Annotated[
        str, typer.Option(metavar="DAYS", help="How long rows are kept, as 90d, or forever.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; show what would be dropped.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Keep a collection's rows for so many days; upkeep drops whole days that are older."""
    days = parse_days(keep)
    with connect(home) as client:
        found = client.keep_collection(name, days, dry_run=dry_run)
    if as_json:
        print_json(found)
        return
    if found.days:
        print_table(
            ["day", "rows#", "bytes#"],
            [(f"{one.day}", f"{one.rows:,}", f"{one.bytes:,}") for one in found.days],
            out(),
        )
    rows, size = sum(one.rows for one in found.days), sum(one.bytes for one in found.days)
    would, kept = ("would drop", "would be kept") if dry_run else ("drops", "are kept")
    out().print(
        f"rows of {found.name} {kept} {f'{days:,} days' if days else 'for ever'}; "
        f"the next upkeep {would} {rows:,} rows of {len(found.days):,} days ({size:,} bytes)"
    )
    for pin in found.pinned_by:
        err().print(
            f"[yellow]{safe(pin)}[/] has pinned some of these days: it still reads them, and their "
            "files stay until it is over"
        )


@app.command()
def reindex(
    name: Name,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make the search index of a collection again from the lake; searches stay right meanwhile."""
    from assets.stores import opened
    from penstock.envelope import parse_collection
    from penstock.logs import set_up_logs

    set_up_logs()
    collection = parse_collection(name)
    with opened(settings_of(home, settings_file)) as stores, stores.indexing() as indexing:
        if indexing is None:
            raise BadRequest("no search index is used here: search_url is not set")
        rows = refused = 0
        for done in indexing.reindex(collection):
            rows, refused = rows + done.rows, refused + done.refused
            err().print(f"[dim]{rows:,} rows, {done.waiting:,} to go[/]")
    if as_json:
        print_json({"collection": str(collection), "rows": rows, "refused": refused})
        return
    out().print(f"{collection}: {rows:,} rows are searchable in the new index")


@app.command()
def resolve(
    name: Name,
    by: Annotated[str, typer.Option(help="What resolves the stop, as 'penstock status' names it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = DEFAULT_HOME,
    settings_file: SettingsOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Let landing of a collection that has stopped go on, by giving up what cannot be brought back.

    **new-log** lands from the log that is there now, from its beginning.
    **loss** goes on behind events that are gone, and keeps in the books that they are lost.
    **reset-marks** lands again what a table that was rolled back does not have.
    **undo-rollback** sets such a table to the snapshot that landing made last.
    **adopt-table** takes the table that is there now, with what it has.
    """
    from assets.remedies import CHOICES
    from assets.resolve import prepare
    from assets.resolve import resolve as carry_out
    from assets.stores import opened
    from penstock.envelope import parse_collection
    from penstock.errors import BadRequest
    from penstock.logs import set_up_logs

    choice = next((one for one in CHOICES if one == by), None)
    if choice is None:
        raise BadRequest(f"there is no {by!r}: --by takes {', '.join(CHOICES)}")
    if as_json and not (yes or dry_run):
        raise BadRequest("--json asks nobody: add --yes or --dry-run")
    set_up_logs()
    collection = parse_collection(name)
    with opened(settings_of(home, settings_file)) as stores:
        agreed = prepare(stores.buffer, stores.lake, collection, choice)
        if not as_json:
            out().print(f"[bold]{collection}[/]: {safe(agreed.stop)}")
            for said in agreed.says:
                out().print(f"  - {safe(said)}")
        if not dry_run:
            if not yes:
                typer.confirm("Do that? It cannot be taken back", abort=True)
            carry_out(stores.buffer, stores.lake, agreed, done=lambda _: None)
    if as_json:
        print_json(
            {
                "collection": str(collection),
                "by": choice,
                "stop": agreed.stop,
                "says": agreed.says,
                "done": not dry_run,
            }
        )
        return
    if dry_run:
        out().print("nothing was changed")
        return
    out().print(f"done: landing goes on by itself; see '{command(home, f'status {name}')}'")


@app.command()
def stats(
    name: Name,
    since: SinceOption = None,
    until: UntilOption = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Minutes of one bar; else about 60 bars.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Show how many events came over time, in the last day if nothing else is said."""
    now = utc_now()
    with connect(home) as client:
        found = client.collection_stats(
            name,
            since=parse_moment(since, now),
            until=parse_moment(until, now),
            step_seconds=step and step * 60,
        )
    if as_json:
        print_json(found)
        return
    _plot(found)
    if found.uncounted:
        err().print(
            f"[yellow]{found.uncounted:,} more have landed and are not counted yet[/]: upkeep "
            "counts them within ten minutes"
        )


def _plot(found: StatsTold) -> None:
    """Draw a bar for each step; what is in quarantine is the yellow end of it."""
    console = out()
    most = max((one.events for one in found.steps), default=0)
    console.print(
        f"[dim]{'from':<16}  {'events':>11}  {'bytes':>14}  {'quarantined':>11}  "
        f"{'duplicates':>11}  {'lag':>8}[/]"
    )
    for one in found.steps:
        width = max(round(one.events / most * _BAR_WIDTH), 1) if one.events else 0
        apart = (
            min(width, max(round(one.quarantined / most * _BAR_WIDTH), 1)) if one.quarantined else 0
        )
        lag = "" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
        console.print(
            f"{one.start:%Y-%m-%d %H:%M}  {one.events:>11,}  {one.bytes:>14,}  "
            f"{one.quarantined:>11,}  {one.duplicates:>11,}  {lag:>8}  "
            f"[cyan]{'█' * (width - apart)}[/][yellow]{'█' * apart}[/]",
            soft_wrap=True,
        )
    events, quarantined, duplicates = (
        sum(getattr(one, name) for one in found.steps)
        for name in ("events", "quarantined", "duplicates")
    )
    console.print(
        f"\n{events:,} events, {quarantined:,} of them went to quarantine, "
        f"{duplicates:,} repeat others"
    )


@app.command()
def pause(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Refuse the collection's events from now on."""
    with connect(home) as client:
        record = client.pause_collection(name)
    print_json(record) if as_json else out().print(f"{record.name} is paused")


@app.command()
def resume(name: Name, home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Accept the collection's events again."""
    with connect(home) as client:
        record = client.resume_collection(name)
    print_json(record) if as_json else out().print(f"{record.name} takes events")


@app.command()
def loops(
    name: Name,
    allow: Annotated[
        bool,
        typer.Option("--allow/--refuse", help="Take back what a replay took from it, or not."),
    ],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonFlag = False,
) -> None:
    """Say whether the collection takes events back that a replay took from it.

    For example: penstock collection loops hello --refuse
    """
    with connect(home) as client:
        record = client.set_loops(name, allow=allow)
    if as_json:
        print_json(record)
        return
    does = "takes" if record.allow_loops else "refuses"
    out().print(f"{record.name} {does} what a replay took from it")
