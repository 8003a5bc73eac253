"""The effects of statements that change a setting: SET, RESET and set_config()."""

from typing import Any

from lagwise._decide.effect import UNSEEN, Effect

_FENCE = {"transaction_read_only", "default_transaction_read_only"}
# When it is off, a backslash escapes a quote: the text that follows would be parsed differently from the server.
_GROUND = "standard_conforming_strings"
# Settings that end with the transaction, however they were set.
_OF_TRANSACTIONS = {"transaction_read_only", "transaction_isolation", "transaction_deferrable"}
_ON = {"on", "true", "yes", "1", "t", "y"}


def literal(node: Any) -> str | None:
    """The text of a literal, a cast to text around it or not; None for anything else."""
    cast = node.get("TypeCast")
    if cast is not None:
        kind = cast["typeName"]
        names = [part["String"]["sval"] for part in kind.get("names", [])]
        # With a length, `::varchar(9)`, the cast truncates.
        if names[-1:] not in (["text"], ["varchar"], ["bool"]) or kind.get("typmods") or kind.get("arrayBounds"):
            return None
        node = cast["arg"]
    value = node.get("A_Const")
    if value is None or value.get("isnull"):
        return None
    if "sval" in value:
        return str(value["sval"].get("sval", ""))
    if "boolval" in value:
        return "true" if value["boolval"].get("boolval") else "false"
    if "ival" in value:
        return str(value["ival"].get("ival", 0))
    return None


def _lifts(name: str, value: str | None) -> Effect:
    guarded = name in _FENCE or name == _GROUND
    return Effect.LIFTS if guarded and (value is None or value.lower() not in _ON) else Effect.NOTHING


def set_config(arguments: list[Any]) -> Effect:
    """`set_config(name, value, is_local)`."""
    local = literal(arguments[2]) if len(arguments) == 3 else None
    lasting = {
        "false": Effect.TOUCHES,
        "true": Effect.TRANSACTION,
    }.get(local or "", Effect.TOUCHES | Effect.TRANSACTION)
    if len(arguments) != 3 or (name := literal(arguments[0])) is None:
        return UNSEEN | Effect.TRANSACTION | lasting
    return lasting | _lifts(name.lower(), literal(arguments[1]))


def set_statement(statement: dict[str, Any]) -> Effect:
    """SET and RESET in all their forms."""
    kind = statement["kind"]
    if kind == "VAR_RESET_ALL":
        return Effect.RESETS | Effect.TOUCHES
    name = statement.get("name", "").lower()
    if kind == "VAR_SET_MULTI":
        lasting = Effect.TOUCHES if name == "session characteristics" else Effect.TRANSACTION
        return lasting | modes(statement.get("args", []))
    arguments = statement.get("args", [])
    value = literal(arguments[0]) if kind == "VAR_SET_VALUE" and len(arguments) == 1 else None
    local = statement.get("is_local") or name in _OF_TRANSACTIONS
    return (Effect.TRANSACTION if local else Effect.TOUCHES) | _lifts(name, value)


def modes(options: list[Any]) -> Effect:
    """What the modes of a transaction add: READ WRITE lifts the fence."""
    for option in options:
        mode = option.get("DefElem", {})
        if mode.get("defname") == "transaction_read_only":
            lifted = _lifts("transaction_read_only", literal(mode.get("arg", {})))
            if lifted:
                return lifted
    return Effect.NOTHING
