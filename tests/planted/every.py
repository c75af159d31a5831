"""All planted bugs."""

from __future__ import annotations

from .in_lua import IN_LUA
from .in_python import IN_PYTHON
from .in_sql import IN_SQL

BUGS = [*IN_PYTHON, *IN_SQL, *IN_LUA]
