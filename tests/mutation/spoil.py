"""What may be done to a piece of source so that it says something else, as Python's syntax tree has it."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
Variant = tuple[str, ast.AST]  # what was done, and what stands there instead


def expressions(node: ast.expr, *, told: bool) -> Iterator[Variant]:
    """What may stand in an expression's place; ``told``: it is part of a message, whose words nobody tests."""
    if isinstance(node, ast.Compare):
        yield from _compared(node)
    elif isinstance(node, ast.BoolOp):
        yield "and/or", ast.BoolOp(SWAPPED[type(node.op)](), copy.deepcopy(node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "without not or minus", copy.deepcopy(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        left, right = copy.deepcopy(node.left), copy.deepcopy(node.right)
        yield "operator", ast.BinOp(left, SWAPPED[type(node.op)](), right)
    elif isinstance(node, ast.Constant) and not told:
        yield from _constants(node)
    elif isinstance(node, ast.IfExp):
        yield "condition", ast.IfExp(negated(node.test), copy.deepcopy(node.body), copy.deepcopy(node.orelse))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TWINS:
        twin = ast.Name(TWINS[node.func.id], ast.Load())
        yield "twin", ast.Call(twin, copy.deepcopy(node.args), copy.deepcopy(node.keywords))


def _compared(node: ast.Compare) -> Iterator[Variant]:
    for at, op in enumerate(node.ops):
        other = copy.deepcopy(node)
        other.ops[at] = SWAPPED[type(op)]()
        yield "comparison", other


def _constants(node: ast.Constant) -> Iterator[Variant]:
    value = node.value
    if isinstance(value, bool):
        yield "truth", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "number", ast.Constant(value + 1)
    elif isinstance(value, str):
        yield "text", ast.Constant(f"XX{value}")
    elif isinstance(value, bytes):
        yield "bytes", ast.Constant(b"XX" + value)


def negated(test: ast.expr) -> ast.expr:
    """The condition's opposite."""
    return ast.UnaryOp(ast.Not(), copy.deepcopy(test))


def statements(node: ast.stmt) -> Iterator[Variant]:
    """What may stand in a statement's place."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield "left out", ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield "left out", ast.Pass()
        if type(node.op) in SWAPPED:
            other = copy.deepcopy(node)
            other.op = SWAPPED[type(node.op)]()  # type: ignore[assignment]  # the other one is an operator, too
            yield "operator", other
    elif isinstance(node, ast.Raise) or (
        isinstance(node, ast.Assign) and all(isinstance(to, ast.Attribute | ast.Subscript) for to in node.targets)
    ):
        yield "left out", ast.Pass()
    elif isinstance(node, ast.Break):
        yield "break/continue", ast.Continue()
    elif isinstance(node, ast.Continue):
        yield "break/continue", ast.Break()


def is_plain(test: ast.expr) -> bool:
    """Whether a condition is turned round by no variant of its own parts."""
    if isinstance(test, ast.Compare):
        return len(test.ops) > 1
    return not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))
