"""What a statement can leave behind in the session that runs it, decided from its parse tree and the catalog."""

from collections.abc import Callable
from typing import Any

from lagwise._decide import settings
from lagwise._decide.built_in import words
from lagwise._decide.catalog import BUILT_IN, Catalog
from lagwise._decide.effect import UNSEEN, Effect
from lagwise._decide.parse import LIMIT, folded, parse
from lagwise._decide.temporary import temporary
from lagwise._decide.unparsed import unparsed
from lagwise._decide.untyped import untyped

_LONG = 2_048
"""Characters from which on it pays to fold lists before a text is looked up or parsed."""
_LONGEST = 1 << 20
_EQUAL = [{"String": {"sval": "="}}]  # what IN means, of a subquery
_HOLD = 0x0020  # CURSOR_OPT_HOLD (nodes/parsenodes.h)
# Expressions and clauses whose only effects are those of their parts.
_PARTS = words(
    """
    A_ArrayExpr A_Const A_Indices A_Star Alias BooleanTest BoolExpr CTECycleClause CTESearchClause CaseExpr CaseWhen
    CoalesceExpr CollateClause ColumnDef CommonTableExpr CurrentOfExpr DefElem GroupingFunc GroupingSet Integer
    JoinExpr JsonAggConstructor JsonArgument JsonBehavior JsonFormat JsonIsPredicate JsonKeyValue JsonOutput
    JsonReturning JsonTableColumn JsonTablePathSpec JsonValueExpr List MergeWhenClause MinMaxExpr MultiAssignRef
    NamedArgExpr NullTest ParamRef RangeFunction RangeSubselect RangeTableFunc RangeTableFuncCol ResTarget RowExpr
    SQLValueFunction SelectStmt SetToDefault SortBy String TypeCast WindowDef XmlExpr XmlSerialize
    """
)
# Syntax that older servers read as a call of one of these functions.
_SYNTAX = {
    "JsonFuncExpr": ("json_value", "json_query", "json_exists"),
    "JsonTable": ("json_table",),
    "JsonParseExpr": ("json",),
    "JsonScalarExpr": ("json_scalar",),
    "JsonSerializeExpr": ("json_serialize",),
    "JsonObjectConstructor": ("json_object",),
    "JsonArrayConstructor": ("json_array",),
    "JsonArrayQueryConstructor": ("json_array",),
    "JsonObjectAgg": ("json_objectagg",),
    "JsonArrayAgg": ("json_arrayagg",),
    "MergeSupportFunc": ("merge_action",),
}
# Fields whose value does not name its kind of node.
_FIELDS = frozenset({"typeName", "useOp", "relation", "intoClause"})
_QUERIES = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_FIXED = {
    "VariableShowStmt": Effect.NOTHING,
    "FetchStmt": Effect.NOTHING,  # what its cursor runs was judged where it was declared
    "ClosePortalStmt": Effect.NOTHING,
    "PrepareStmt": Effect.TOUCHES,
    "DeallocateStmt": Effect.TOUCHES | Effect.SPOILS,
    "ListenStmt": Effect.TOUCHES,
    "UnlistenStmt": Effect.TOUCHES,
    "NotifyStmt": Effect.WRITES,
    "LockStmt": Effect.TRANSACTION,
    "ConstraintsSetStmt": Effect.TRANSACTION,
    "ExecuteStmt": UNSEEN,
    "DoStmt": UNSEEN,
    "CallStmt": UNSEEN,
    "LoadStmt": UNSEEN,
}
_TRANSACTIONS = {
    "TRANS_STMT_BEGIN": Effect.BEGINS,
    "TRANS_STMT_START": Effect.BEGINS,
    "TRANS_STMT_SAVEPOINT": Effect.TRANSACTION,
    "TRANS_STMT_RELEASE": Effect.TRANSACTION,
    "TRANS_STMT_ROLLBACK_TO": Effect.TRANSACTION,
}
_DISCARDS = {
    "DISCARD_ALL": Effect.LIFTS | Effect.RESETS | Effect.SPOILS | Effect.TOUCHES,
    "DISCARD_PLANS": Effect.SPOILS | Effect.TOUCHES,
}


def effects_of(sql: str, catalog: Catalog = BUILT_IN) -> Effect:
    """What running this text does to its session; several statements in one text do what each of them does.

    The judgement is kept with the catalog. Text that cannot be parsed counts as unseen code, with what its words tell.

    >>> effects_of("SELECT count(*) AS n FROM item WHERE lower(name) = $1")
    <Effect.NOTHING: 0>
    >>> effects_of("SELECT set_config('search_path', $1, false)")
    <Effect.TOUCHES: 1>
    """
    judged = catalog.judged.young.get(sql)
    return _judged(sql, catalog) if judged is None else judged


def _judged(sql: str, catalog: Catalog) -> Effect:
    if len(sql) > _LONG:
        # Above this, looking for lists alone would take too long.
        sql = folded(sql) if len(sql) <= _LONGEST else sql
        if len(sql) > LIMIT:
            return unparsed(sql)
    known = catalog.judged.young.get(sql)
    if known is None:
        known = catalog.judged.recall(sql)
    if known is None:
        known = _judge(sql, catalog)
        catalog.judged.keep(sql, known)
    return known


def _judge(sql: str, catalog: Catalog) -> Effect:
    statements = None if "\\" in sql and not catalog.standard_strings else parse(sql)
    if statements is None:
        return unparsed(sql)
    effect = Effect.NOTHING
    for statement in statements:
        effect |= _statement(statement["stmt"], catalog)
    return effect


def _statement(node: dict[str, Any], catalog: Catalog) -> Effect:
    ((kind, statement),) = node.items()
    if kind in _QUERIES:
        return _query(node, catalog)
    if kind in _FIXED:
        return _FIXED[kind]
    match kind:
        case "VariableSetStmt":
            return settings.set_statement(statement)
        case "TransactionStmt":
            return _TRANSACTIONS.get(statement["kind"], Effect.ENDS) | settings.modes(statement.get("options", []))
        case "DiscardStmt":
            return _DISCARDS.get(statement["target"], Effect.TOUCHES)
        case "ExplainStmt":
            analyzed = any(option["DefElem"]["defname"] == "analyze" for option in statement.get("options", []))
            effect = _statement(statement["query"], catalog)
            # Planning writes nothing, but it folds constants: a domain's CHECK is run, by way of an array's input.
            return effect if analyzed else effect & ~Effect.WRITES
        case "DeclareCursorStmt":
            held = statement.get("options", 0) & _HOLD
            return _query(statement["query"], catalog) | (Effect.TOUCHES if held else Effect.TRANSACTION)
        case "CopyStmt":
            return _copy(statement, catalog)
    # DDL runs code in many places: defaults, index expressions, event triggers, extensions.
    return UNSEEN | Effect.WRITES | temporary(statement)


def _copy(statement: dict[str, Any], catalog: Catalog) -> Effect:
    if statement.get("is_program"):
        return UNSEEN | Effect.WRITES
    if "query" in statement:
        return _query(statement["query"], catalog)
    relation = _relation(statement["relation"])
    if not statement.get("is_from"):
        return catalog.read(relation)
    return catalog.write(relation) | _query({"BoolExpr": statement.get("whereClause", {})}, catalog)


def _query(root: dict[str, Any], catalog: Catalog) -> Effect:
    """The effects of a query, or of a statement that writes, and of all their parts. No recursion: trees are deep."""
    effect = UNSEEN if catalog.unseen or (catalog.types and untyped(root)) else Effect.NOTHING
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for name, value in node.items():
                if isinstance(value, dict | list):
                    waiting.append(value)
                    # Kinds of nodes are capitalised, fields are not.
                    if name in _FIELDS:
                        effect |= _field(name, value, catalog)
                    elif name[0].isupper() and name not in _PARTS:
                        found = _node(name, value, catalog)
                        if found is not Effect.NOTHING:
                            effect |= found
    return effect


def _node(kind: str, node: Any, catalog: Catalog) -> Effect:
    judge = _NODES.get(kind)
    if judge is not None:
        return judge(node, catalog)
    # Anything else is a kind of expression that is not known here.
    return catalog.grammar(_SYNTAX[kind]) if kind in _SYNTAX else UNSEEN


def _field(name: str, value: Any, catalog: Catalog) -> Effect:
    match name:
        case "typeName":
            return catalog.type(_path(value["names"]))
        case "useOp":
            return catalog.operator(_path(value))
        case "relation" if "relname" in value:
            return catalog.read(_relation(value))
        case "intoClause":
            return Effect.WRITES | (temporary({"into": value}) or UNSEEN)
    return Effect.NOTHING


def _call(node: dict[str, Any], catalog: Catalog) -> Effect:
    path = _path(node["funcname"])
    effect = catalog.function(path)
    if path[-1] == "set_config" and Effect.TRANSACTION in effect:
        return settings.set_config(node.get("args", []))
    return effect


def _attributes(parts: list[Any], catalog: Catalog) -> Effect:
    effect = Effect.NOTHING
    for part in parts:
        if "String" in part:
            effect |= catalog.attribute(part["String"]["sval"])
    return effect


def _path(names: list[Any]) -> list[str]:
    return [name["String"]["sval"] for name in names]


def _relation(node: dict[str, Any]) -> list[str]:
    return [node["schemaname"], node["relname"]] if "schemaname" in node else [node["relname"]]


def _column(node: Any, catalog: Catalog) -> Effect:
    # A call needs the row before its dot.
    return _attributes(node["fields"][-1:], catalog) if len(node["fields"]) > 1 else Effect.NOTHING


def _operator(node: Any, catalog: Catalog) -> Effect:
    return Effect.NOTHING if "BETWEEN" in node["kind"] else catalog.operator(_path(node["name"]))


def _write(node: Any, catalog: Catalog) -> Effect:
    return catalog.write(_relation(node["relation"]))


_NODES: dict[str, Callable[[Any, Catalog], Effect]] = {
    "A_Expr": _operator,
    "A_Indirection": lambda node, catalog: _attributes(node["indirection"], catalog),
    "ColumnRef": _column,
    "FuncCall": _call,
    "SubLink": lambda node, catalog: catalog.operator(_path(node.get("operName", _EQUAL))),
    "RangeVar": lambda node, catalog: catalog.read(_relation(node)),
    "TypeName": lambda node, catalog: catalog.type(_path(node["names"])),
    "RangeTableSample": lambda node, catalog: catalog.function(_path(node["method"])),
    "LockingClause": lambda _node, _catalog: Effect.WRITES,
    "InsertStmt": _write,
    "UpdateStmt": _write,
    "DeleteStmt": _write,
    "MergeStmt": _write,
}
