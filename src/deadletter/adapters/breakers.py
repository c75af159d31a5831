"""Circuit breakers: ``@breaker_service.breakers["email_service"]`` on a function, ``worker(breakers=...)`` on types.

An open circuit is no failure of a task: what it refuses is put off until the circuit may close again, and no attempt is
consumed. A worker with breakers goes further: it parks the types that need the service.
"""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ..model.errors import InvalidTask, MissingExtra
from ..model.task import Duration, seconds

try:
    from circuitbreaker import STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker, CircuitBreakerError
except ModuleNotFoundError as missing:
    raise MissingExtra("breakers", "deadletter.adapters.breakers") from missing

_FULL_RATE = 1000.0  # starts a second at which a ramp has reached its end


class Breaker(CircuitBreaker):  # type: ignore[misc]  # it comes without types
    """A ``circuitbreaker.CircuitBreaker`` that lets one probe through, and learns nothing from what it should not.

    A cancelled call says nothing of the service. While a probe runs, other calls are refused. A call that began before
    the circuit opened neither closes nor prolongs it. One breaker serves any number of threads and event loops.

    Args:
        failure_threshold: so many failures in a row open it.
        recovery_timeout: seconds until a probe.
        expected_exception: which errors count: a type, several, or a predicate of type and error.
        name: for messages.
        fallback_function: called in place of a refused call.
        ramp_start: starts a second that a worker allows when it has closed. ramp_factor: by which this grows each second.

    Raises:
        InvalidTask: names the argument.
    """

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_timeout: Duration | None = None,
        expected_exception: Any = None,
        name: str | None = None,
        fallback_function: Callable[..., Any] | None = None,
        *,
        ramp_start: float = 1.0,
        ramp_factor: float = 2.0,
    ) -> None:
        if failure_threshold is not None and (not isinstance(failure_threshold, int) or failure_threshold < 1):
            raise InvalidTask("failure_threshold", f"{failure_threshold!r} is no number of failures; give 1 or more")
        if not 0 < ramp_start < math.inf:
            raise InvalidTask("ramp_start", f"{ramp_start!r} is no rate; give starts a second, more than 0")
        if not 1 < ramp_factor < math.inf:
            raise InvalidTask("ramp_factor", f"{ramp_factor!r} makes no ramp; give more than 1")
        wait = None if recovery_timeout is None else seconds("recovery_timeout", recovery_timeout)
        super().__init__(failure_threshold, wait, expected_exception, name, fallback_function)
        self._ramp_start, self._ramp_factor = ramp_start, ramp_factor
        self._lock = threading.Lock()
        self._probing = False

    @property
    def opened(self) -> bool:
        """Whether it refuses calls: it is open, or a probe is under way."""
        return self.state == STATE_OPEN or self._probing

    @property
    def threshold(self) -> int:
        """So many failures in a row open it."""
        return int(self._failure_threshold)

    @property
    def recovery(self) -> float:
        """Seconds until a probe."""
        return float(self._recovery_timeout)

    def counts(self, error: BaseException) -> bool:
        """Whether an error counts."""
        return isinstance(error, Exception) and bool(self.is_failure(type(error), error))

    def rate(self, elapsed: float) -> float:
        """Starts a second that a worker allows ``elapsed`` seconds after it closed; from 1,000 on any number."""
        try:
            rate = self._ramp_start * self._ramp_factor**elapsed
        except OverflowError:
            return math.inf
        return rate if rate < _FULL_RATE else math.inf

    @contextmanager
    def _passage(self) -> Iterator[None]:
        with self._lock:
            probe = self.state == STATE_HALF_OPEN
            if self._probing or (self._state == STATE_OPEN and not probe):  # since it was asked a moment ago
                raise CircuitBreakerError(self)
            self._probing = probe
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                if probe:
                    self._probing = False
                if (error is None or isinstance(error, Exception)) and (probe or self._state != STATE_OPEN):
                    self.__exit__(type(error) if error is not None else None, error, None)

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function through it."""
        with self._passage():
            return func(*args, **kwargs)

    def call_generator(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        """The same, of a generator function."""
        with self._passage():
            yield from func(*args, **kwargs)

    async def call_async(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The same, of a coroutine function."""
        with self._passage():
            return await func(*args, **kwargs)

    async def call_async_generator(
        self, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any, Any]:
        """The same, of an async generator function."""
        with self._passage():
            async for item in func(*args, **kwargs):
                yield item


class Breakers(dict[str, Breaker]):
    """Breakers by name; one that is asked for and not there is made, with the usual limits."""

    def __missing__(self, name: str) -> Breaker:
        if not isinstance(name, str) or not name:
            raise InvalidTask("name", f"{name!r} is no breaker's name; give a text")
        return self.setdefault(name, Breaker(name=name))


class BreakerService:
    """The breakers of this process."""

    def __init__(self) -> None:
        self.breakers = Breakers()

    def configure(self, name: str, **options: Any) -> Breaker:
        """Make a breaker with limits of its own, before it is first used; the options are those of Breaker.

        Raises:
            InvalidTask: names the option, or the breaker that is in use already.
        """
        if name in self.breakers:
            raise InvalidTask("name", f"breaker {name!r} is in use already; configure it before anything asks for it")
        self.breakers[name] = Breaker(name=name, **options)
        return self.breakers[name]


breaker_service = BreakerService()

__all__ = ["Breaker", "BreakerService", "Breakers", "breaker_service"]
