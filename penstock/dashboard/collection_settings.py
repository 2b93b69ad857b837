"""What is decided about a collection. Each change says first what it does, and to what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api import collections
from penstock.api.platform import Doors, Here, Platform
from penstock.api.publishing import Publisher
from penstock.contract.collections import (
    Collection,
    ContractAsked,
    Grown,
    Keeping,
    KeptDays,
    LoopsAsked,
)
from penstock.contract.formats import FormatAsked, FormatTold, FormatTried
from penstock.contract.trials import TrialTold
from penstock.dashboard.access import Administering, Reading, Visit
from penstock.dashboard.forms import Form, Wrong, asked, whole
from penstock.dashboard.ids import in_path
from penstock.dashboard.questions import Question
from penstock.dashboard.schema import CONTRACTS
from penstock.errors import NotFound, Rejected
from penstock.vocabulary import Contract, FormatName, Framing

router = APIRouter(prefix="/collections/{c}/settings")

SAMPLE = 1_000
"""Past events that a format is tried on."""

# Fields that a kind of payloads has; a form brings those of the others, too.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "protobuf": ("descriptor", "message", "envelope", "payload_field", "payload_message"),
    "avro": ("avro_schema", "framing", "registry", "registry_secret"),
}
_NUMBERS = ("payload_field",)
_SECRET, _ASIDE = "registry_secret", "registry_secret_aside"

FORMATS: Mapping[FormatName, str] = {
    "json": "JSON",
    "plain": "plain: any bytes, nobody looks into them",
    "protobuf": "Protobuf",
    "avro": "Avro",
}


@router.get("", name="settings")
def show(c: str, visit: Reading, here: Here) -> Response:
    """Show what is decided. A contract in the address is the one that is chosen."""
    return _show(c, visit, here, chosen=visit.request.query_params.get("contract", ""))


@router.post("/format/try", name="try_format")
def try_format(c: str, visit: Administering, here: Here) -> Response:
    """Say what past events would become in a format; nothing is changed."""
    try:
        wanted = asked(FormatTried, {**_format_asked(c, visit), "sample": SAMPLE})
        trial = collections.format_tried(c, wanted, visit.caller, here)
    except Wrong as error:
        return _show(c, visit, here, wrong=error.fields, status=422)
    except Rejected as error:
        return _show(c, visit, here, wrong={"format": str(error)}, status=422)
    return _show(c, visit, here, trial=trial)


@router.post("/format", name="set_format")
def set_format(c: str, visit: Administering, here: Here, doors: Doors) -> Response:
    """Ask whether payloads shall be of a format from now on; or say that they are."""
    try:
        wanted = asked(FormatAsked, _format_asked(c, visit))
        if not visit.form.has("sure"):
            told = collections.format_checked(c, wanted, visit.caller, here)
            return _show(c, visit, here, question=_format(c, told, wanted, visit))
        record = collections.set_format(c, wanted, visit.caller, here, doors)
    except Wrong as error:
        return _show(c, visit, here, wrong=error.fields, status=422)
    except Rejected as error:
        return _show(c, visit, here, wrong={"format": str(error)}, status=422)
    return _show(
        c, visit, here, done=f"Payloads that land from now on are read as {record.format.name}."
    )


@router.post("/{what}", name="change_setting")
def change(c: str, what: str, visit: Administering, here: Here, doors: Doors) -> Response:
    """Say what a change would do and ask; or do it, if somebody is sure."""
    record = collections.show_collection(c, visit.caller, here)
    act = _CHANGES.get(what)
    if act is None:
        raise NotFound("setting", what)
    try:
        question, do = act(c, record, visit, here, doors)
        if not visit.form.has("sure"):
            return _show(c, visit, here, question=question)
        done = do()
    except Wrong as error:
        return _show(c, visit, here, wrong={_FIELD[what]: _first(error)}, status=422)
    except Rejected as error:
        return _show(c, visit, here, wrong={_FIELD[what]: str(error)}, status=422)
    return _show(c, visit, here, done=done)


Do = Callable[[], str]
"""Changes it, and answers the sentence that says so."""
Act = Callable[[str, Collection, Visit, Platform, Publisher], tuple[Question, Do]]


def _contract(
    c: str, record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    wanted = asked(ContractAsked, {"contract": visit.form.text("contract")})

    def do() -> str:
        collections.set_contract(c, wanted, visit.caller, here, doors)
        return f"The contract is {wanted.contract} from the next batch on."

    return (
        Question(
            action=_path(c, "contract"),
            back=_path(c),
            title=f"Change the contract to {wanted.contract}?",
            says=(
                CONTRACTS[wanted.contract],
                f"From the next batch that lands on; until now it is {record.contract}.",
                "Rows that have landed stay as they are; a rebuild puts them through it.",
            ),
            sure="Change the contract",
            fields=[("contract", wanted.contract)],
            danger=wanted.contract == "quarantine",
        ),
        do,
    )


def _keep(
    c: str, _record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    text = visit.form.text("days")
    days = whole(text) if text else None
    if isinstance(days, str):
        raise Wrong({"days": "Write a number of whole days, or leave it empty for ever."})
    wanted = KeptDays(days=None) if days is None else asked(KeptDays, {"days": days})
    look = wanted.model_copy(update={"dry_run": True})
    due = collections.keep_collection(c, look, visit.caller, here, doors)

    def do() -> str:
        collections.keep_collection(c, wanted, visit.caller, here, doors)
        return "Rows are kept for ever." if days is None else f"Rows are kept {_days(days)}."

    return (
        Question(
            action=_path(c, "keep"),
            back=_path(c),
            title="Keep rows for ever?" if days is None else f"Keep rows {_days(days)}?",
            says=keep_says(due),
            sure="Keep them for ever" if days is None else f"Keep them {_days(days)}",
            fields=[("days", text)],
            danger=bool(due.days),
        ),
        do,
    )


def keep_says(due: Keeping) -> tuple[str, ...]:
    """Answer what keeping rows so long does to those that are there. Pure."""
    if due.keep_days is None:
        return ("Nothing is dropped from now on; what was dropped does not come back.",)
    goes = "Whole days that are older go, from rows, quarantine, index and statistics; "
    said = [f"{goes}the books count them as expired."]
    if due.days:
        rows = sum(day.rows for day in due.days)
        first, last = min(one.day for one in due.days), max(one.day for one in due.days)
        span = f"{_days(len(due.days))}, {first} to {last}"
        when = str(first) if len(due.days) == 1 else span
        said.append(
            f"The next upkeep drops {rows:,} {'row' if rows == 1 else 'rows'} of {when}. "
            "That cannot be undone."
        )
    else:
        said.append("No row is that old: the next upkeep drops nothing.")
    if due.pinned_by:
        said.append(f"Kept a while by who has pinned some of it: {', '.join(due.pinned_by)}.")
    return tuple(said)


def _days(days: int) -> str:
    return "1 day" if days == 1 else f"{days:,} days"


def _pause(
    c: str, _record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    def do() -> str:
        collections.pause_collection(c, visit.caller, here, doors)
        return "It is paused: doors refuse its events."

    return (
        Question(
            action=_path(c, "pause"),
            back=_path(c),
            title=f"Pause {c}?",
            says=(
                "Every door refuses its events within half a second, and tells senders so (409).",
                "What was accepted still lands, is found and can be replayed.",
            ),
            sure="Pause it",
            danger=True,
        ),
        do,
    )


def _resume(
    c: str, _record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    def do() -> str:
        collections.resume_collection(c, visit.caller, here, doors)
        return "It takes events again."

    return (
        Question(
            action=_path(c, "resume"),
            back=_path(c),
            title=f"Let {c} take events again?",
            says=("Doors accept its events within half a second.",),
            sure="Resume it",
        ),
        do,
    )


def _loops(
    c: str, _record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    allow = visit.form.text("allow") == "yes"

    def do() -> str:
        collections.set_loops(c, LoopsAsked(allow=allow), visit.caller, here, doors)
        return f"It {'takes' if allow else 'refuses'} what a replay took from it."

    says = (
        (
            "Events that a replay took from it, and somebody sends back, are accepted as new ones.",
            "A replay whose destination sends to it goes round for ever, if nobody stops it.",
        )
        if allow
        else ("Doors refuse events that a replay took from it. Those that are there stay.",)
    )
    return (
        Question(
            action=_path(c, "loops"),
            back=_path(c),
            title=f"{'Take' if allow else 'Refuse'} replays of itself?",
            says=says,
            sure="Take them" if allow else "Refuse them",
            fields=[("allow", "yes" if allow else "no")],
            danger=allow,
        ),
        do,
    )


def _partitions(
    c: str, record: Collection, visit: Visit, here: Platform, doors: Publisher
) -> tuple[Question, Do]:
    text = visit.form.text("partitions")
    wanted = asked(Grown, {"partitions": whole(text)})
    if wanted.partitions <= record.partitions:
        raise Wrong({"partitions": f"It has {record.partitions} already; it can only grow."})

    def do() -> str:
        grown = collections.grow_collection(c, wanted, visit.caller, here, doors)
        return f"Its log has {grown.partitions} partitions."

    return (
        Question(
            action=_path(c, "partitions"),
            back=_path(c),
            title=f"Give its log {wanted.partitions} partitions?",
            says=(
                f"It has {record.partitions} now, and can never have fewer again.",
                "A key may move to another partition: the order of its events ends there.",
                "Events that are there stay where they are.",
            ),
            sure="Grow it",
            fields=[("partitions", text)],
            danger=True,
        ),
        do,
    )


_CHANGES: Mapping[str, Act] = {
    "contract": _contract,
    "keep": _keep,
    "pause": _pause,
    "resume": _resume,
    "loops": _loops,
    "partitions": _partitions,
}
_FIELD = {
    "contract": "contract",
    "keep": "days",
    "pause": "pause",
    "resume": "pause",
    "loops": "allow",
    "partitions": "partitions",
}


def _path(c: str, what: str = "") -> str:
    return f"/collections/{in_path(c)}/settings{'/' if what else ''}{what}"


def _format(c: str, told: FormatTold, wanted: FormatAsked, visit: Visit) -> Question:
    says = [
        "What lands from now on is read so; what cannot be goes to quarantine.",
        "Rows that have landed stay as they are; a rebuild reads them anew.",
    ]
    if told.registry is not None:
        secret = "with the secret you typed" if wanted.registry_secret else "with its secret"
        says.append(
            f"Schemas are asked for at {told.registry}, "
            f"{secret if told.registry_secret else 'without a secret'}."
        )
    names = ("name", *_FIELDS.get(told.name, ()))
    return Question(
        title=f"Read payloads as {FORMATS[told.name]}?",
        says=tuple(says),
        action=_path(c, "format"),
        sure="Set the format",
        back=_path(c),
        fields=[
            *((name, visit.form.raw(name)) for name in names if name != _SECRET),
            *((_ASIDE, aside) for aside in [_aside(c, visit)] if aside),
        ],
    )


def _format_asked(c: str, visit: Visit) -> dict[str, Any]:
    """Answer what the form asks; a secret that was typed a step before is in it."""
    fields = format_fields(visit.form)
    if _SECRET in fields and not fields[_SECRET]:
        fields[_SECRET] = visit.taken_up(visit.form.raw(_ASIDE), of=_typed_for(c, visit))
    return fields


def _aside(c: str, visit: Visit) -> str:
    """Answer what the page holds of a secret that was typed, which nobody reads there.

    It is for the address that it was typed with: another one is not shown it.
    """
    text, of = _format_asked(c, visit).get(_SECRET), _typed_for(c, visit)
    return visit.put_aside(text, of=of) if text else ""


def _typed_for(c: str, visit: Visit) -> tuple[str, ...]:
    return ("registry", visit.caller.team, c, visit.form.text("registry"))


def format_fields(form: Form) -> dict[str, Any]:
    """Answer the fields of the format that was chosen, without those of the others. Pure."""
    name = form.text("name")
    fields: dict[str, Any] = {"name": name}
    for each in _FIELDS.get(name, ()):
        text = "".join(form.text(each).split()) if each == "descriptor" else form.text(each)
        fields[each] = whole(text) if each in _NUMBERS else text
    return fields


def _first(error: Wrong) -> str:
    return next(iter(error.fields.values()))


def _show(
    c: str,
    visit: Visit,
    here: Platform,
    *,
    question: Question | None = None,
    done: str = "",
    trial: TrialTold | None = None,
    wrong: Mapping[str, str] | None = None,
    chosen: str = "",
    status: int = 200,
) -> Response:
    return visit.show(
        "settings.html",
        status=status,
        c=c,
        collection=collections.show_collection(c, visit.caller, here),
        contracts=CONTRACTS,
        formats=FORMATS,
        aside=_aside(c, visit) if wrong or trial or question else "",
        framings=get_args(Framing),
        question=question,
        done=done,
        trial=trial,
        wrong=wrong or {},
        chosen=chosen if chosen in get_args(Contract) else "",
        form=visit.form if wrong or trial or question else Form({}),
    )
