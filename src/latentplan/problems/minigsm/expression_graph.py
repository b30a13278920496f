"""A problem as a small graph of quantities: parsed from the templates' expressions, evaluated exactly.

A node is a number's name, a constant, or one of

    ("+", ((1, node), (-1, node), ...))     a sum of signed terms
    ("*", (node, node, ...))                a product
    ("/", node, node)                       an exact division
    ("%", node, node)                       `percent(x, p)`, p percent of x

Equal nodes are one quantity, so a quantity that is used twice is computed once.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

Node = Any
Value = int | Fraction


def parse(expression: str, names: Mapping[str, Node]) -> Node:
    """Returns the graph of an expression of names, whole numbers, `+ - * /` and `percent(x, p)`.

    A name in `names` stands for that graph, and every other name for a number of the question.
    Raises ValueError on any other syntax.
    """
    return _convert(_syntax(expression), names)


@cache
def _syntax(expression: str) -> ast.expr:
    try:
        return ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise ValueError(f"not an expression of minigsm: {expression}") from None


def _convert(tree: ast.expr, names: Mapping[str, Node]) -> Node:
    match tree:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Constant(value=int(number)):
            return number
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return ("+", ((1, _convert(left, names)), (1, _convert(right, names))))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return ("+", ((1, _convert(left, names)), (-1, _convert(right, names))))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return ("*", (_convert(left, names), _convert(right, names)))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return ("/", _convert(left, names), _convert(right, names))
        case ast.Call(func=ast.Name(id="percent"), args=[whole, share]):
            return ("%", _convert(whole, names), _convert(share, names))
    raise ValueError(f"not an expression of minigsm: {ast.unparse(tree)}")


def children(node: Node) -> tuple[Node, ...]:
    """Returns the nodes that this one is computed from; none for a name or a constant."""
    if not isinstance(node, tuple):
        return ()
    if node[0] == "+":
        return tuple(term for _, term in node[1])
    return node[1] if node[0] == "*" else node[1:]


def walk(node: Node) -> Iterator[Node]:
    """Yields every distinct node below and including this one, those computed first coming first."""
    seen: set[Node] = set()

    def visit(current: Node) -> Iterator[Node]:
        if current in seen:
            return
        for child in children(current):
            yield from visit(child)
        if current not in seen:
            seen.add(current)
            yield current

    yield from visit(node)


def flatten(root: Node) -> Node:
    """Join sums of sums and products of products, unless the inner one is also used elsewhere."""
    uses = Counter(child for node in walk(root) for child in children(node))

    def rebuild(node: Node) -> Node:
        if not isinstance(node, tuple):
            return node
        if node[0] == "+":
            terms: list[tuple[int, Node]] = []
            for sign, child in node[1]:
                inner = rebuild(child)
                joins = isinstance(inner, tuple) and inner[0] == "+" and uses[child] == 1
                terms += [(sign * s, term) for s, term in inner[1]] if joins else [(sign, inner)]
            return ("+", tuple(terms))
        if node[0] == "*":
            factors: list[Node] = []
            for child in node[1]:
                inner = rebuild(child)
                joins = isinstance(inner, tuple) and inner[0] == "*" and uses[child] == 1
                factors += inner[1] if joins else [inner]
            return ("*", tuple(factors))
        return (node[0], *(rebuild(child) for child in node[1:]))

    return rebuild(root)


def divide(whole: Value, parts: Value) -> Value:
    """Returns the exact quotient, a whole number where it is one."""
    return exact(Fraction(whole) / parts) if whole % parts else int(whole // parts)


def percent(whole: Value, share: Value) -> Value:
    """Computes `share` percent of `whole`, exactly."""
    return divide(whole * share, 100)


def exact(value: Value) -> Value:
    """Returns the same number, as an int where it is whole."""
    return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def evaluate(node: Node, values: Mapping[str, Value]) -> Value:
    """Returns the value of a node for these values of the names."""
    if isinstance(node, str):
        return values[node]
    if isinstance(node, int):
        return node
    if node[0] == "+":
        total: Value = 0
        for sign, term in node[1]:
            value = evaluate(term, values)
            total = total + value if sign > 0 else total - value
        return exact(total)
    if node[0] == "*":
        total = 1
        for factor in node[1]:
            total = total * evaluate(factor, values)
        return exact(total)
    operation = divide if node[0] == "/" else percent
    return operation(evaluate(node[1], values), evaluate(node[2], values))


def canonical(node: Node, values: Mapping[str, Value]) -> str:
    """Writes graph and numbers as a text, equal where only the order of terms or factors differs."""
    if isinstance(node, str):
        return str(values[node])
    if isinstance(node, int):
        return str(node)
    if node[0] == "+":
        return f"({''.join(sorted(('+-'[sign < 0] + canonical(term, values)) for sign, term in node[1]))})"
    if node[0] == "*":
        return f"({'*'.join(sorted(canonical(factor, values) for factor in node[1]))})"
    return f"({canonical(node[1], values)}{node[0]}{canonical(node[2], values)})"
