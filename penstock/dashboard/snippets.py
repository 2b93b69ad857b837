"""How to send the first event, ready to be copied. Pure."""

from __future__ import annotations

import shlex
from typing import NamedTuple


class Snippet(NamedTuple):
    """A text for one way to send; `id` tells it from the others of a page."""

    id: str
    title: str
    text: str


def snippets(collection: str, *, http: str, grpc: str, token: str = "") -> list[Snippet]:
    """Answer a snippet for each way to send; without a token it is a variable of the shell."""
    url = f"{http}/v1/events/{collection}"
    shown = token or "$TOKEN"
    inside = f'"{token}"' if token else 'os.environ["TOKEN"]'
    imports = "" if token else "import os\n"
    return [
        Snippet(
            "curl",
            "curl",
            f'curl -H "Authorization: Bearer {shown}" -H "Content-Type: application/json" \\\n'
            f"""     -d '{{"hello": "world"}}' {shlex.quote(url)}""",
        ),
        Snippet(
            "python",
            "Python",
            f"import json\n{imports}import urllib.request\n\n"
            "request = urllib.request.Request(\n"
            f'    "{url}",\n'
            '    data=json.dumps({"hello": "world"}).encode(),\n'
            "    headers={\n"
            f'        "Authorization": "Bearer " + {inside},\n'
            '        "Content-Type": "application/json",\n'
            "    },\n"
            ")\n"
            "print(urllib.request.urlopen(request).read().decode())",
        ),
        Snippet(
            "grpc",
            "gRPC",
            f"{imports}import grpc\n\n"
            "from ingest_api.proto import records_pb2, services_pb2, services_pb2_grpc\n\n"
            f'with grpc.insecure_channel("{grpc}") as channel:\n'
            "    door = services_pb2_grpc.GRPCCollectorStub(channel)\n"
            "    record = records_pb2.KafkaSinkRecord(\n"
            '        topic="orders", key=b"17", value=b\'{"hello": "world"}\'\n'
            "    )\n"
            "    answer = door.AddKafkaRecord(\n"
            "        services_pb2.KafkaSinkRecordRequest(records=[record]),\n"
            "        metadata=(\n"
            f'            ("batch-token", {inside}),\n'
            f'            ("penstock-collection", "{collection}"),\n'
            "        ),\n"
            "    )\n"
            "print(answer.num_records_processed)",
        ),
        Snippet(
            "plumber",
            "plumber",
            f"export PLUMBER_RELAY_TOKEN={shown}\n"
            f"export PLUMBER_RELAY_GRPC_ADDRESS={grpc} PLUMBER_RELAY_GRPC_DISABLE_TLS=true\n"
            "export PLUMBER_RELAY_KAFKA_ADDRESS=kafka:9092 PLUMBER_RELAY_KAFKA_TOPIC=orders\n"
            "plumber relay kafka",
        ),
    ]
