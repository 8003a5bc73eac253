"""Literals and parameters that take their type from where they stand, and expressions that must agree on one."""

from typing import Any

# Expressions of which two or more get one type: text[] becomes an array of a domain beside one, and its CHECK is run.
_AGREEING = {
    "CoalesceExpr": ("args",),
    "MinMaxExpr": ("args",),
    "CaseExpr": ("args", "defresult"),
    "A_ArrayExpr": ("elements",),
}


def untyped(root: Any) -> bool:
    """Whether somewhere in a parse tree a value may be made of a type that no name there tells.

    In `tags @> '{red}'` and `array_append(tags, $1)` the text becomes what the column is: an array of a domain, say. A
    literal or parameter right under a cast is what the cast says.
    """
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            if _united(node):
                return True
            for name, value in node.items():
                if name == "TypeCast" and not {"A_Const", "ParamRef"}.isdisjoint(value["arg"]):
                    continue
                if name == "ParamRef" or (name == "A_Const" and ("sval" in value or "isnull" in value)):
                    return True
                if name in _AGREEING and sum(_count(value.get(part)) for part in _AGREEING[name]) > 1:
                    return True
                if isinstance(value, dict | list):
                    waiting.append(value)
    return False


def _united(node: dict[str, Any]) -> bool:
    """Whether this is a query of several whose columns get one type each: UNION and the like, VALUES of many rows."""
    return node.get("op", "SETOP_NONE") in {"SETOP_UNION", "SETOP_INTERSECT", "SETOP_EXCEPT"} or (
        _count(node.get("valuesLists")) > 1
    )


def _count(part: Any) -> int:
    return len(part) if isinstance(part, list) else int(part is not None)
