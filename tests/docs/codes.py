"""Which refusal codes the sources can raise: read off their syntax, not by running them.

1. The second argument of `Refusal` is a code, and so is every parameter named `code`. Each
   literal that is passed there is one, after the prefix that the function puts before it.
2. A code that is composed, as `f"CONFIG_UNKNOWN_{what}"`, stands for every literal that callers
   pass for `what`, and for its default.
3. `reader.get(Table, key, "thing")` refuses with `<TABLE>_NOT_FOUND`.
4. Codes in tables and reasons are found as literals of two words or more in capitals, less
   `NOT_CODES`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.docs.pages import ROOT

ROOMS = ("housecall", "coordinator", "agent", "cli")
LOOKS_LIKE_A_CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")

NOT_CODES = {
    "CREDENTIALS_DIRECTORY",
    "DIGEST_DIFFERS",  # of additional files; a prefix is put before it
    "DOCKER_HOST",
    "GRPC_VERBOSITY",
    "HOUSECALL_AGENT_",
    "HOUSECALL_AGENT_CONFIG",
    "HOUSECALL_COORDINATOR_CONFIG",
    "HOUSECALL_HOME",
    "HOUSECALL_PROFILE",
    "HOUSECALL_RESUME",
    "HOUSECALL_SOCKET",
    "HOUSECALL_TRACE_ENDPOINT",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "JOURNAL_STREAM",
    "MEDPERF_LOGLEVEL",
    "MKL_NUM_THREADS",
    "NOTIFY_SOCKET",
    "NO_PROXY",
    "NUMEXPR_NUM_THREADS",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "WAITING_CONSENT",  # states of an execution
    "WAITING_RELEASE",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
}
"""Literals that look like codes: variables of the environment, states, parts of codes."""


@dataclass(frozen=True)
class Taker:
    """A function or class that is given a code: the names of its parameters, its body."""

    module: str
    name: str
    is_method: bool
    parameters: tuple[str, ...]
    defaults: dict[str, str]
    body: ast.AST


REFUSAL = Taker(
    "housecall/errors.py", "Refusal", False, ("kind", "code", "message"), {}, ast.Module([], [])
)


@cache
def modules() -> dict[str, ast.Module]:
    """Every source file's syntax, by its path from the root; generated code left out."""
    paths = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
        if "v1" not in path.relative_to(ROOT).parts
    }


@cache
def raised() -> frozenset[str]:
    """Every code that the sources can raise or state as a reason."""
    found = set(_looking_like_codes())
    for path, tree in modules().items():
        for call, inside in _calls(tree):
            for taker in _takers(call, path):
                for code in _literals(_argument(call, taker, "code"), inside, path):
                    found |= {prefix + code for prefix in _prefixes(taker)}
            found |= _of_a_table(call)
    return frozenset(found)


@cache
def kinds() -> dict[str, frozenset[str]]:
    """For each code that is raised with a kind that can be read off, the names of the kinds."""
    found: dict[str, set[str]] = {}
    for path, tree in modules().items():
        for call, inside in _calls(tree):
            for taker in _takers(call, path):
                codes = _literals(_argument(call, taker, "code"), inside, path)
                for code in (prefix + code for prefix in _prefixes(taker) for code in codes):
                    found.setdefault(code, set()).update(_kinds(call, taker))
    return {code: frozenset(names) for code, names in found.items() if names}


def _looking_like_codes() -> Iterator[str]:
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if LOOKS_LIKE_A_CODE.fullmatch(text) and text not in NOT_CODES:
                    yield text


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, Taker | None]]:
    """Every call, and the function that it stands in."""
    stack: list[tuple[ast.AST, Taker | None]] = [(tree, None)]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = _taker("", node.name, node)
        if isinstance(node, ast.Call):
            yield node, inside
        stack += [(child, inside) for child in ast.iter_child_nodes(node)]


@cache
def _all_takers() -> dict[str, list[Taker]]:
    found: dict[str, list[Taker]] = {"Refusal": [REFUSAL]}
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, []).append(_taker(path, node.name, node))
            if isinstance(node, ast.ClassDef) and node.name != "Refusal":
                for each in node.body:
                    if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                        found.setdefault(node.name, []).append(_taker(path, node.name, each))
    return found


def _taker(path: str, name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Taker:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    pairs = [
        *zip(names[len(names) - len(given.defaults) :], given.defaults, strict=True),
        *((a.arg, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d),
    ]
    defaults = {n: d.value for n, d in pairs if isinstance(d, ast.Constant) and d.value}
    is_method = names[:1] in (["self"], ["cls"]) and function.name != "__init__"
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    names += [argument.arg for argument in given.kwonlyargs]
    texts = {n: value for n, value in defaults.items() if isinstance(value, str)}
    return Taker(path, name, is_method, tuple(names), texts, function)


def _takers(call: ast.Call, path: str, parameter: str = "code") -> list[Taker]:
    """What a call calls, if it has the parameter: a function of this module or one that it
    imports, or, on an object of unknown class, every method of that name."""
    name, home = _callee(call), _imports(path)
    if name == "__init__" and call.args and _kind(call.args[0]):  # a subclass of Refusal
        return [REFUSAL]
    found = [each for each in _all_takers().get(name, []) if parameter in each.parameters]
    if isinstance(call.func, ast.Name):
        return [each for each in found if each.module in (path, home.get(name, "housecall"))]
    base = call.func.value if isinstance(call.func, ast.Attribute) else None
    owner = base.id if isinstance(base, ast.Name) else ""
    if owner in home:
        return [each for each in found if each.module == home[owner]]
    return [each for each in found if each.is_method]


@cache
def _imports(path: str) -> dict[str, str]:
    """Where a module has its imported names from, as paths."""
    found = {}
    imports = (n for n in ast.walk(modules()[path]) if isinstance(n, ast.ImportFrom) and n.module)
    for node in imports:
        for alias in node.names:
            package = str(node.module).replace(".", "/")
            module = f"{package}/{alias.name}.py"
            found[alias.asname or alias.name] = module if module in modules() else f"{package}.py"
    return found


def _callee(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _argument(call: ast.Call, taker: Taker, parameter: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == parameter:
            return keyword.value
    at = taker.parameters.index(parameter)
    return call.args[at] if at < len(call.args) else None


def _literals(value: ast.expr | None, inside: Taker | None, path: str) -> set[str]:
    """The texts that an expression can be; none for a variable, whose value comes from callers
    or from a table."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return {value.value}
    if isinstance(value, ast.IfExp):
        return _literals(value.body, inside, path) | _literals(value.orelse, inside, path)
    if isinstance(value, ast.JoinedStr) and inside is not None:
        return _composed(value, inside, path)
    return set()


def _composed(value: ast.JoinedStr, inside: Taker, path: str) -> set[str]:
    texts = {""}
    for part in value.values:
        if isinstance(part, ast.Constant):
            texts = {text + str(part.value) for text in texts}
            continue
        names = [n.id for n in ast.walk(part) if isinstance(n, ast.Name)]
        if names == ["code"]:  # a prefix: its callers' literals are found at the callers
            return set()
        assert set(names) <= set(inside.parameters), (
            f"{path}: cannot tell which codes {ast.unparse(value)} is: teach tests/docs/codes.py"
        )
        texts = {text + word.upper() for text in texts for word in _passed(inside.name, names[0])}
    return texts


def _passed(function: str, parameter: str) -> set[str]:
    """Every literal that anybody passes for a parameter, and its default."""
    found: set[str] = set()
    for path, tree in modules().items():
        for call, inside in _calls(tree):
            if _callee(call) == function:
                for taker in _takers(call, path, parameter):
                    found |= _literals(_argument(call, taker, parameter), inside, path)
                    found |= {taker.defaults[parameter]} if parameter in taker.defaults else set()
    return found


def _prefixes(taker: Taker) -> set[str]:
    """What a function puts before the code that it is given."""
    found = set()
    for node in ast.walk(taker.body):
        if isinstance(node, ast.JoinedStr) and len(node.values) == 2:
            first, second = node.values
            named = [n.id for n in ast.walk(second) if isinstance(n, ast.Name)]
            if isinstance(first, ast.Constant) and named == ["code"]:
                text = str(first.value)
                found |= {text} if re.fullmatch(r"[A-Z_]+_", text) else set()
    return found or {""}


def _of_a_table(call: ast.Call) -> set[str]:
    """Rule 3."""
    if _callee(call) == "get" and len(call.args) == 3 and isinstance(call.args[0], ast.Name):
        return {call.args[0].id.upper() + "_NOT_FOUND"}
    return set()


def _kinds(call: ast.Call, taker: Taker) -> set[str]:
    """The kinds named in the call itself, or in what the function does with its code."""
    if "kind" in taker.parameters:
        return _kind(_argument(call, taker, "kind"))
    found: set[str] = set()
    for node in ast.walk(taker.body):
        if isinstance(node, ast.Call) and _callee(node) in ("Refusal", "__init__") and node.args:
            code = node.args[1] if len(node.args) > 1 else None
            if any(isinstance(n, ast.Name) and n.id == "code" for n in ast.walk(code or node)):
                found |= _kind(node.args[0])
    return found


def _kind(value: ast.expr | None) -> set[str]:
    named = isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name)
    if named and isinstance(value, ast.Attribute) and ast.unparse(value.value) == "Kind":
        return {value.attr}
    return set()
