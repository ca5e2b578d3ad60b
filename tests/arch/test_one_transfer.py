"""Values leave a device in one module: no other one of the agent may write down a call that reads a tensor or waits for it,
nor give such a method another name, and the functions that this one offers ask where a tensor lies before they read it.

A type checker is not asked, so a tensor is what is annotated as one, or was just made by torch, in the same function. What
this cannot see, the run on meta tensors does (`tests/unit/agent/test_transfer.py`), and the count of operators
(`tests/e2e/test_one_copy.py`).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

AGENT = Path(__file__).parents[2] / "agent/gradwatch_agent"
TRANSFER = AGENT / "device/transfer.py"
MODULES = sorted(path for path in AGENT.rglob("*.py") if path != TRANSFER and AGENT / "demo" not in path.parents)
"""The demo is a trainer and may do what trainers do."""

READS = frozenset({"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "is_nonzero", "unique", "synchronize"})
"""Methods of a tensor, and functions of torch, that bring values to the host or wait for the device."""

CASTS = frozenset({"float", "int", "bool", "complex", "max", "min"})
"""Builtins that read a tensor when they are given one."""

BUILT = frozenset({"torch.device", "torch.is_grad_enabled", "torch.Size", "torch.is_tensor"})
"""What torch returns here is no tensor."""

NO_TENSOR = frozenset({"is_compiling", "is_current_stream_capturing", "is_available", "signature"})


FETCHES = frozenset({"getattr", "attrgetter", "methodcaller"})
"""What makes a method of its name."""


def reads(tree: ast.AST) -> list[int]:
    """Lines that read or wait, or take a method that does, wherever they stand."""
    found = [node.lineno for node in _read_nodes(tree)]
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found += _reads_of(function, _tensors(function))
    return sorted(set(found))


def unguarded(tree: ast.Module) -> list[int]:
    """Lines of the one module that would let others read any tensor: a reading method under another name, or a function that
    reads what it did not ask `is_cpu` of. Methods of classes may: they read slots, whose copies are done."""
    found = []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for statement in tree.body:
        asked = {ast.unparse(n.value) for n in ast.walk(statement) if isinstance(n, ast.Attribute) and n.attr == "is_cpu"}
        for node in _read_nodes(statement):
            used = isinstance(node, ast.Attribute) and id(node) in called
            asks = isinstance(node, ast.Attribute) and ast.unparse(node.value) in asked
            if not (used and (asks or isinstance(statement, ast.ClassDef))):
                found.append(node.lineno)
    return found


def _read_nodes(tree: ast.AST) -> list[ast.expr | ast.stmt]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.expr, ast.ImportFrom)) and _is_read(node)]


def _is_read(node: ast.expr | ast.stmt) -> bool:
    """Whether this is a reading method, called or not; its name given to what makes a method of it; or its import."""
    if isinstance(node, ast.Attribute):
        return node.attr in READS
    if isinstance(node, ast.ImportFrom):
        return any(alias.name in READS for alias in node.names)
    if not isinstance(node, ast.Call):
        return False
    words = {a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)}
    named = {a.value for a in node.args[:2] if isinstance(a, ast.Constant)}  # the third of getattr is what else to take
    name = ast.unparse(node.func).rsplit(".", 1)[-1]
    return (name == "to" and "cpu" in words) or (name in FETCHES and not READS.isdisjoint(named))


def _tensors(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names of a function that hold one tensor: annotated so, or assigned from a call of torch."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = {argument.arg for argument in arguments if argument.annotation and _means_tensor(argument.annotation)}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _means_tensor(node.annotation):
            names.add(node.target.id)
        if isinstance(node, ast.Assign) and _makes_tensor(node.value):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _means_tensor(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).strip("'\"") in {"Tensor", "torch.Tensor"}


def _makes_tensor(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = ast.unparse(value.func)
    return called.startswith("torch.") and called not in BUILT and called.rsplit(".", 1)[-1] not in NO_TENSOR


def _reads_of(function: ast.AST, tensors: set[str]) -> list[int]:
    """Lines where one of these names is cast, or decides: `if loss:`, `not loss`, `loss > 1 and …`."""

    def is_tensor(node: ast.expr) -> bool:
        if isinstance(node, ast.Compare):
            by_value = not any(isinstance(op, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for op in node.ops)
            return by_value and any(is_tensor(part) for part in (node.left, *node.comparators))
        if isinstance(node, ast.BinOp):
            return is_tensor(node.left) or is_tensor(node.right)
        return (isinstance(node, ast.Name) and node.id in tensors) or _makes_tensor(node)

    found = []
    for node in ast.walk(function):
        cast = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CASTS
        if cast and any(map(is_tensor, node.args)):  # type: ignore[attr-defined]
            found.append(node.lineno)  # type: ignore[attr-defined]
        decides = [node.test] if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)) else []
        decides += node.values if isinstance(node, ast.BoolOp) else []
        decides += [node.operand] if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) else []
        found += [part.lineno for part in decides if is_tensor(part)]
    return found


def test_agent_reads_tensors_only_in_device_transfer() -> None:
    """One copy an update can only be kept in one place."""
    elsewhere = [f"{path.relative_to(AGENT)}:{line}" for path in MODULES for line in reads(ast.parse(path.read_text()))]

    assert elsewhere == []


def test_agent_transfer_module_is_where_the_reads_are() -> None:
    """The rule above looks at the right places: the one module that may read does."""
    assert reads(ast.parse(TRANSFER.read_text()))


def test_agent_transfer_module_offers_no_read_that_does_not_ask_first() -> None:
    """Else a device could be waited for through what this module exports, where no other rule looks."""
    assert unguarded(ast.parse(TRANSFER.read_text())) == []


@pytest.mark.parametrize(
    "planted",
    [
        "read = torch.Tensor.tolist",
        "read: Callable[[Tensor], Any] = torch.Tensor.tolist",
        "read = methodcaller('item')",
        "def read(t): return t.tolist()",
        "def read(t, other): return t.tolist() if other.is_cpu else None",
        "def read(t): return t.is_cpu and getattr(t, 'item')()",
        "class Read: read = torch.Tensor.item",
    ],
)
def test_transfer_rule_planted_export_is_found(planted: str) -> None:
    """Each is a read of whatever it is given, under a name that no rule knows."""
    assert unguarded(ast.parse(planted)) == [1]


@pytest.mark.parametrize("planted", ["from torch import nonzero", "from torch import masked_select as pick"])
def test_transfer_rule_planted_import_is_found(planted: str) -> None:
    """A function of torch under its bare name."""
    assert reads(ast.parse(planted)) == [1]


@pytest.mark.parametrize(
    "planted",
    [
        "loss.item()",
        "torch.Tensor.tolist",
        "t.item",
        "methodcaller('tolist')",
        "getattr(t, 'cpu')()",
        "t.to(device='cpu')",
        "t.to('cpu').tolist()",
        "t.detach().cpu()",
        "t.numpy()",
        "torch.nonzero(t)",
        "torch.cuda.synchronize()",
        "float(loss)",
        "int(torch.ones(1))",
        "bool(loss > 1)",
        "max(loss, 0.0)",
        "1 if loss else 2",
        "not loss",
        "loss > 1 and 2",
        "float(made)",
    ],
)
def test_transfer_rule_planted_read_is_found(planted: str) -> None:
    """Each way to wait for a device that can be seen in the text."""
    source = f"def f(loss: torch.Tensor, t):\n    made = torch.ones(1)\n    x = {planted}"
    assert reads(ast.parse(source)) == [3]


@pytest.mark.parametrize(
    "honest", ["float(host)", "loss is None", "not host", "loss.shape[0] > 1 and 2", "torch.is_grad_enabled()"]
)
def test_transfer_rule_leaves_host_numbers_alone(honest: str) -> None:
    """A rule that cries at everything would be switched off."""
    assert reads(ast.parse(f"def f(loss: torch.Tensor, host: float):\n    x = {honest}")) == []
