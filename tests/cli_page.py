"""The reference of the command line, made from the commands themselves: `make docs` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from penstock.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"

_HEAD = """\
# Command line

This page is made from the commands by `make docs`; a test fails when it is stale.

Every command takes `--home`, the folder of the installation (default `~/.penstock`).
One that takes `--json` then prints one JSON value on stdout; `search` and `land` print one a line.
Errors go to stderr: a sentence, or with `--json` the same problem document as over HTTP.
The exit code is 0 when it is done, 1 when it failed, 2 when the command was used wrongly.

| variable | |
|---|---|
| `PENSTOCK_HOME` | The home, where `--home` is not given. |
| `PENSTOCK_API` | The platform's address, to reach another machine; with `PENSTOCK_TOKEN`. |
| `PENSTOCK_DOOR` | The door's address, for `send`; with `PENSTOCK_TOKEN`. |
| `PENSTOCK_TOKEN` | The token, instead of the admin token of the home. |
"""


def cli_page() -> str:
    """Answer the whole page."""
    root = typer.main.get_command(app)
    return "\n".join([_HEAD, *_sections(root, "penstock")])


def commands() -> Iterator[tuple[str, Any]]:
    """Answer every command that can be typed, with its full name."""
    yield from _leaves(typer.main.get_command(app), "penstock")


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, one in below.items():
        yield from _leaves(one, f"{name} {word}")


def _sections(command: Any, name: str) -> Iterator[str]:
    for title, one in _leaves(command, name):
        arguments = [p for p in one.params if p.param_type_name == "argument"]
        options = [p for p in one.params if p.param_type_name == "option" and p.name != "home"]
        words = [_word(argument) for argument in arguments]
        usage = " ".join([title, *words, *(["[options]"] if options else [])])
        yield f"## {title}\n\n    {usage}\n\n{_prose(one.help)}\n"
        rows = [*(_row(_word(a), a) for a in arguments), *map(_option, options)]
        if rows:
            yield "| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _word(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    return _row(", ".join(option.opts), option)


def _row(name: str, parameter: Any) -> str:
    told = [parameter.help or ""]
    if parameter.param_type_name == "option" and parameter.required:
        told.append("Required.")
    default = parameter.default
    if not (default is None or isinstance(default, bool) or callable(default) or default == ""):
        told.append(f"Default: `{default}`.")
    return f"| `{name}` | {' '.join(told)} |".replace("  |", " |")


def _prose(help_text: str) -> str:
    example = "For example: "
    return "\n\n".join(
        f"    {part.removeprefix(example)}" if part.startswith(example) else " ".join(part.split())
        for part in help_text.split("\n\n")
    )


if __name__ == "__main__":
    PAGE.write_text(cli_page())
