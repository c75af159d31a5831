"""Settings from the environment, and the queue that ``module:attribute`` names.

A table of parsers: what a converter library would add here is its import time, on every ``DeadLetterQueue.from_env``.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from .engine import lazy
from .engine.queue import DeadLetterQueue, living
from .model.errors import DeadLetterError, InvalidSetting, InvalidTask
from .model.task import seconds
from .retry.schedule import Schedule
from .rules.duration_text import parse_duration, shown
from .rules.redaction import check_paths, redactor

DEFAULT_URL = "sqlite:///deadletter.db"

_MOST_TOKENS = 1_000_000  # bytes of a file of tokens

_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")


def queue_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says of a queue, as arguments of ``DeadLetterQueue``; an empty variable counts as unset.

    Raises:
        InvalidSetting: names the variable.
    """
    options: dict[str, Any] = {"backend": _read("DEADLETTER_URL", _url, environ.get("DEADLETTER_URL") or DEFAULT_URL)}
    for variable, (option, parse) in _OPTIONS.items():
        text = environ.get(variable)
        if text:
            options[option] = _read(variable, parse, text)
    return options


def api_tokens(environ: Mapping[str, str]) -> tuple[str, str | None]:
    """The tokens of the HTTP API as text, and the variable that they are from; None where there are none.

    DEADLETTER_API_TOKENS holds them, or the file that DEADLETTER_API_TOKENS_FILE names, there also one a line.

    Raises:
        InvalidSetting: names the variable; no token is shown.
    """
    text, path = environ.get("DEADLETTER_API_TOKENS") or None, environ.get("DEADLETTER_API_TOKENS_FILE")
    if not path:
        return "DEADLETTER_API_TOKENS", text
    if text is not None:
        raise InvalidSetting("DEADLETTER_API_TOKENS_FILE", "DEADLETTER_API_TOKENS is set, too; set one of them")
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is one more import for every from_env
            lines = file.read(_MOST_TOKENS).split()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidSetting("DEADLETTER_API_TOKENS_FILE", f"cannot read {path}: {said}") from None
    return "DEADLETTER_API_TOKENS_FILE", ",".join(lines)


def load_app(target: str, *, setting: str = "DEADLETTER_APP") -> DeadLetterQueue:
    """Import ``module:attribute``, a queue whose module registers processors; modules of the working directory count.

    Raises:
        InvalidSetting: names ``setting`` and says what is wrong with the target, the module's own failure included.
    """
    module_name, separator, attribute = target.partition(":")
    if not separator or not module_name or not attribute:
        raise InvalidSetting(setting, f"{shown(target)} names no queue; write it as module:attribute")
    found: Any = import_module(module_name, setting=setting)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise InvalidSetting(setting, f"module {module_name!r} has no {attribute!r}") from None
    if not isinstance(found, DeadLetterQueue):
        raise InvalidSetting(setting, f"{target} is a {type(found).__name__}; it must be a DeadLetterQueue")
    return found


def known_queues() -> list[DeadLetterQueue]:
    """Every queue that this process has made and still holds, by name."""
    lazy.made()  # those of functions that were decorated by URL or environment
    return sorted(living(), key=lambda queue: (queue.name, queue.backend.url))


def import_module(name: str, *, setting: str) -> ModuleType:
    """Import a user's module, the working directory's included; raises InvalidSetting that says what went wrong."""
    if not any(entry in ("", os.getcwd()) for entry in sys.path):  # noqa: PTH109 - compared with sys.path, which holds text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidSetting(setting, f"there is no module {name!r} here or among what is installed") from None
        raise InvalidSetting(setting, _failed(name, error)) from error
    except DeadLetterError as error:
        raise InvalidSetting(setting, _failed(name, error)) from error
    except (Exception, SystemExit) as error:  # a script that ends itself is no module to import
        raise InvalidSetting(setting, _failed(name, error)) from error


def _failed(name: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    told = isinstance(error, SyntaxError) or not frames  # which names its place itself
    place = "" if told else f" ({frames[-1].filename}, line {frames[-1].lineno})"
    said = " ".join(str(error).split())
    return f"importing {name!r} failed: {type(error).__name__}: {said}{place}"


def _read(variable: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except InvalidTask as error:
        raise InvalidSetting(variable, error.problem) from None
    except ValueError as error:
        raise InvalidSetting(variable, str(error)) from None


def _url(text: str) -> str:
    if "://" not in text:
        raise ValueError('it has no scheme; write it like "sqlite:///path.db"')  # not shown: it may hold a password
    return text


def _name(text: str) -> str:
    if len(text) > 100 or not text.isprintable():
        raise ValueError(f"{shown(text)} is no queue name; give 1-100 printable characters")
    return text


def _delays(text: str) -> tuple[float, ...]:
    delays = tuple(parse_duration(part) for part in text.split(",") if part.strip())
    if not delays:
        raise ValueError(f'{shown(text)} is no list of delays; write seconds joined by commas, such as "5,30,120,300"')
    Schedule(delays)  # the queue would refuse what is too long, and could not name the variable
    return delays


def _ttl(text: str) -> float | None:
    return None if text.strip().lower() == "none" else seconds("dlq_ttl", parse_duration(text))


def _threshold(text: str) -> int:
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if number < 1 or not number.is_integer():
        raise ValueError(f"{shown(text)} is no number of letters; give a whole number, 1 or more")
    return int(number)


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(part.strip() for part in text.split(",") if part.strip())
    check_paths(paths)
    return redactor(paths).paths


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "DEADLETTER_QUEUE": ("name", _name),
    "DEADLETTER_RETRY_DELAYS": ("retry_delays", _delays),
    "DEADLETTER_DLQ_TTL": ("dlq_ttl", _ttl),
    "DEADLETTER_ALERT_THRESHOLD": ("alert_threshold", _threshold),
    "DEADLETTER_RELEASE": ("release", str),
    "DEADLETTER_REDACT": ("redact", _paths),
    "DEADLETTER_SPOOL": ("spool", str),
}
