"""`penstock status`."""

from __future__ import annotations

from penstock.cli.console import JsonFlag, out, print_json, safe, table
from penstock.cli.home import DEFAULT_HOME, HomeOption, command, connect


def status(home: HomeOption = DEFAULT_HOME, as_json: JsonFlag = False) -> None:
    """Show whether everything responds, and what waits where."""
    with connect(home) as client:
        health, whole = client.health(), client.status()
    if as_json:
        print_json({"health": health, "status": whole})
        return
    console = out()
    for name, one in health.adapters.items():
        sign = (
            "[green]responds[/]"
            if one.responds
            else f"[red]does not respond[/]: {safe(one.reason)}"
        )
        console.print(f"  {name:<12} {sign} [dim]({one.seconds * 1000:.0f} ms)[/]")
    if any(not one.responds for one in health.adapters.values()):
        console.print(f"  [dim]what to do about it: {command(home, 'doctor')}[/]")
    if not whole.collections:
        console.print(f"no collections yet: '{command(home, 'collection create NAME')}'")
        return
    console.print(
        table(
            "",
            ["collection", "rows#", "quarantined#", "waiting#"],
            [(one.name, one.rows, one.quarantined, one.waiting) for one in whole.collections],
        )
    )
    if whole.replays:
        console.print("replays: " + ", ".join(f"{n} {state}" for state, n in whole.replays.items()))
