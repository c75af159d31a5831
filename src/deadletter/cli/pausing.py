"""Commands that hold work back: pause, resume."""

from __future__ import annotations

from ..views import pause_item
from .exits import DONE
from .flags import Flags
from .output import harmless
from .session import session


async def pause(glob: str, /, *, why: str, flags: Flags | None = None) -> int:
    """Let no worker start tasks of a type until it is resumed; within a second, in every process.

    Example: deadletter pause 'email.*' --why 'the mail server is down'

    What runs already goes on. A glob that is paused already stays so, for its first reason.

    Args:
        glob: A type, or a glob such as 'email.*' ('*' is all types).
        why: For whoever finds the work waiting.
    """
    async with session(flags, server=True) as desk:
        made = await desk.queue.pause(glob, why=why)
        desk.answer(pause_item(made), lambda: print(harmless(f"{made.types} paused: {made.why}")))
    return DONE


async def resume(glob: str = "*", /, *, flags: Flags | None = None) -> int:
    """Lift the pause of a glob and of all that it covers; without one every pause.

    Example: deadletter resume 'email.*'

    Where nothing was paused so, it says that and exits with 0.

    Args:
        glob: As it was paused, or a wider one.
    """
    async with session(flags, server=True) as desk:
        lifted = await desk.queue.resume(glob)
        left = await desk.queue.paused()
        nothing = "nothing was paused" if glob == "*" else f"nothing was paused as {glob}"
        lines = [f"{pause.types} resumed" for pause in lifted] or [nothing]
        lines += [f"{pause.types} is still paused: {pause.why}" for pause in left]
        document = {"resumed": [*map(pause_item, lifted)], "paused": [*map(pause_item, left)]}
        desk.answer(document, lambda: print("\n".join(map(harmless, lines))))
    return DONE
