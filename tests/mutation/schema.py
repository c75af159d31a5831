"""A module with all of its mutants in it, each behind a switch: ``(mutant if _mutant(17) else original)``.

So one import and one collection of the tests serve them all, and a forked child turns one on.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from .spoil import expressions, is_plain, negated, statements

SWITCH = "_mutant"


@attrs.frozen
class Mutant:
    """One change.

    Attributes:
        key: of what is changed and how, whatever its line is: it outlives edits elsewhere in the file.
        number: of its switch, in this run.
        late: whether it stands in a function, so that it can be turned on after the import.
    """

    key: str
    number: int
    path: str
    line: int
    where: str
    what: str
    was: str
    becomes: str
    late: bool


class Schema(ast.NodeTransformer):
    """Makes the tree of one module."""

    def __init__(self, path: str, first: int) -> None:
        self.mutants: list[Mutant] = []
        self._path = path
        self._first = first
        self._names: list[str] = []
        self._functions = 0
        self._told = 0
        self._met: Counter[str] = Counter()

    def _add(self, node: ast.AST, what: str, variant: ast.AST) -> ast.Call:
        was, becomes = ast.unparse(node), ast.unparse(ast.fix_missing_locations(copy.deepcopy(variant)))
        where = ".".join(self._names)
        told = f"{self._path}\0{where}\0{what}\0{was}\0{becomes}"
        self._met[told] += 1
        key = hashlib.sha256(f"{told}\0{self._met[told]}".encode()).hexdigest()[:10]
        number = self._first + len(self.mutants)
        line = getattr(node, "lineno", 0)
        self.mutants.append(Mutant(key, number, self._path, line, where, what, was, becomes, self._functions > 0))
        return ast.Call(ast.Name(SWITCH, ast.Load()), [ast.Constant(number)], [])

    def visit(self, node: ast.AST) -> Any:
        """Whatever it is."""
        if isinstance(node, ast.expr) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            return self._expression(node)
        if isinstance(node, ast.stmt) and not isinstance(node, _KEPT):
            return self._statement(node)
        return super().visit(node)

    def _expression(self, node: ast.expr) -> Any:
        if isinstance(node, ast.JoinedStr) or _is_typing(node):
            return node
        raw = copy.deepcopy(node)
        logs = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")
        self._told += logs
        changed: Any = super().visit(node)
        self._told -= logs
        for what, variant in expressions(raw, told=self._told > 0):
            changed = ast.IfExp(self._add(raw, what, variant), variant, changed)
        return changed

    def _statement(self, node: ast.stmt) -> Any:
        raw = copy.deepcopy(node)
        self._told += isinstance(node, ast.Raise)
        changed: Any = super().visit(node)
        self._told -= isinstance(node, ast.Raise)
        if isinstance(raw, ast.Expr) and ast.unparse(raw.value).startswith("log."):
            return changed
        for what, variant in statements(raw):
            changed = ast.If(self._add(raw, what, variant), [variant], [changed])
        return changed

    def visit_If(self, node: ast.If) -> Any:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return node
        return self._condition(node)

    def visit_While(self, node: ast.While) -> Any:
        return self._condition(node)

    def _condition(self, node: Any) -> Any:
        raw = copy.deepcopy(node.test)
        self.generic_visit(node)
        if is_plain(raw) and not isinstance(raw, ast.Constant):
            node.test = ast.IfExp(self._add(raw, "condition", negated(raw)), negated(raw), node.test)
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        raw = copy.deepcopy(node.value)
        self.generic_visit(node)
        if raw is not None and node.value is not None and not (isinstance(raw, ast.Constant) and raw.value is None):
            none = ast.Constant(None)
            node.value = ast.IfExp(self._add(raw, "returns None", none), none, node.value)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self._names.append(node.name)
        node.body = _each(self, _without_docstring(node.body))
        self._names.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Any:
        decorated = [ast.unparse(decorator) for decorator in node.decorator_list]
        if "overload" in decorated or node.name == "__repr__":
            return node
        self._names.append(node.name)
        node.args.defaults = _each(self, node.args.defaults)
        node.args.kw_defaults = [default and self.visit(default) for default in node.args.kw_defaults]
        self._functions += 1
        node.body = _each(self, _without_docstring(node.body))
        self._functions -= 1
        self._names.pop()
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        self._functions += 1
        node.body = self.visit(node.body)
        self._functions -= 1
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is not None and "TypeAlias" not in ast.unparse(node.annotation):
            node.value = self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        if ast.unparse(node.targets[0]) in ("__all__", "__slots__"):
            return node
        node.value = self.visit(node.value)
        return node

    def visit_Assert(self, node: ast.Assert) -> Any:
        return node

    def visit_match_case(self, node: ast.match_case) -> Any:
        node.body = _each(self, node.body)
        return node


_KEPT = (ast.If, ast.While, ast.Return, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)


def _each(schema: Schema, nodes: list[Any]) -> list[Any]:
    return [schema.visit(node) for node in nodes]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] or [ast.Pass()] if told else body


def _is_typing(node: ast.expr) -> bool:
    """Names of types in calls that only a type checker reads."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "TypeVar", "NewType", "ParamSpec")


def schema_of(path: Path, shown: str, first: int) -> tuple[ast.Module, list[Mutant]]:
    """The module with its switches, the first numbered so, and its mutants in order."""
    tree = ast.parse(path.read_text("utf-8"))
    made = Schema(shown, first)
    at = next((n + 1 for n, node in enumerate(tree.body) if _is_future(node)), 0)
    tree.body[at:] = _each(made, _without_docstring(tree.body[at:]))
    return ast.fix_missing_locations(tree), made.mutants


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
