"""Why a broker is not reached. Only the client's log says it: a call that fails was too late."""

from __future__ import annotations

import logging

# What a line holds, and what it means to who wrote the settings; the first that fits.
_MEANINGS = (
    (
        "certificate verify failed",
        "the certificate of a broker does not pass; see ssl.ca.location",
    ),
    (
        "in state AUTH_",
        "a broker refuses the sign-in; see sasl.mechanism, sasl.username and sasl.password",
    ),
    ("SSL", "TLS with a broker fails; see security.protocol and what begins with ssl."),
    (
        "in state APIVERSION_QUERY",
        "a broker hangs up at the first word, as one that expects TLS; see security.protocol",
    ),
)


def meaning_of(line: str) -> str | None:
    """Answer what is wrong with the settings, None where nothing says that they are."""
    return next((meaning for sign, meaning in _MEANINGS if sign in line), None)


class Trouble:
    """Stands in for the logger of a client: what fails at every try is kept, the rest is logged."""

    def __init__(self) -> None:
        self._meaning: str | None = None

    def log(self, level: int, form: str, *words: object) -> None:
        """Take a line of the client; its first word says what it is about."""
        if words and words[0] == "FAIL":
            # Behind the names of the thread and of the broker. The last line holds: a broker that
            # dies hangs up at the first word, too, and refuses connections from then on.
            self._meaning = meaning_of(str(words[-1]).split(": ", 2)[-1])
        else:
            logging.getLogger("penstock.kafka").log(level, form, *words)

    def told(self, else_: str) -> str:
        """Answer what was heard last, or else this."""
        if self._meaning is None:
            return else_
        return f"Kafka does not answer: {self._meaning}, in the file that log_url names (config=)"

    def forget(self) -> None:
        """Take it that brokers were reached."""
        self._meaning = None
