"""The closed sets of words that Penstock keeps, is asked with, and tells."""

from __future__ import annotations

from typing import Literal

Scope = Literal["ingest", "read", "replay", "tunnel", "admin"]
"""What a token may do; `admin` implies the others, nothing else implies anything."""

Contract = Literal["evolve", "freeze", "quarantine", "drop_value"]
"""What becomes of leaves without a column: see `penstock.schema.convert.Rules`."""

FormatName = Literal["json", "plain", "protobuf", "avro"]
"""What the payloads of a collection are."""

Framing = Literal["datum", "single-object", "confluent"]
"""What stands before a value of Avro and says its schema: nothing, its fingerprint, its id."""

Credential = Literal["client_secret", "client_certificate", "client_key"]
"""What an HTTP destination may have beside what signs."""

Kind = Literal["http", "kafka", "rabbitmq", "sqs", "collection", "file", "tunnel"]
"""What a destination is."""

State = Literal["requested", "planning", "running", "paused", "finished", "failed", "cancelled"]
"""Where a replay is."""

Wish = Literal["pause", "resume", "cancel"]
"""What somebody asked of a replay that runs."""

End = Literal["released", "discarded", "copy"]
"""How a quarantined event was closed."""
