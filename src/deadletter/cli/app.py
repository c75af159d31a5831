"""The commands, listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cyclopts import App, Group, Parameter

from ..__about__ import __version__
from . import changing, completion, demo, health, monitoring, pausing, reading, serving, simulation, transfer, working
from .output import styled

_HELP = """Failed work is never lost: look at dead letters, send them back, run workers.

Where the tasks are is said by --url or DEADLETTER_URL.
Exit codes: 0 done, 1 unhealthy or partly failed, 2 bad use or unreachable."""

_SECTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "Try it": {"demo": demo.demo, "simulate": simulation.simulate},
    "Run": {
        "worker": working.worker,
        "serve": serving.serve,
        "monitor": monitoring.monitor,
        "open": serving.open_,
        "check": health.check,
        "doctor": health.doctor,
    },
    "Look": {
        "ls": reading.ls,
        "show": reading.show,
        "search": reading.search,
        "groups": reading.groups,
        "stats": reading.stats,
    },
    "Change": {
        "retry": changing.retry,
        "retry-all": changing.retry_all,
        "cancel": changing.cancel,
        "purge": changing.purge,
        "erase": changing.erase,
        "pause": pausing.pause,
        "resume": pausing.resume,
    },
    "Move": {"export": transfer.export, "import": transfer.import_},
    "Set up": {"completion": completion.completion},
}


_USAGE = {name: f"Usage: deadletter {name} [OPTIONS] ID..." for name in ("retry", "cancel")}


def make_app() -> App:
    """The command line as cyclopts knows it."""
    app = App(
        name="deadletter",
        help=_HELP,
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative=""),
    )
    for at, (section, commands) in enumerate(_SECTIONS.items()):
        group = Group(section, sort_key=at)
        for name, command in commands.items():
            app.command(command, name=name, group=group, usage=_USAGE.get(name))
    if not styled():
        from rich.console import Console

        app.console = Console(color_system=None)
    return app
