"""A parsed template carried out over a value.

Owns the scope of variables, the meaning of fields and control structures, and
the limits on what a template may cost. Called by Template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from rootless.cli.template.functions import Function as Implementation
from rootless.cli.template.lex import TemplateError
from rootless.cli.template.parse import (
    Branch,
    Field,
    Function,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
)
from rootless.cli.template.values import Map, Struct, format_value, truth, type_name

# Ranges within ranges multiply: what no honest template comes near.
_MOST_STEPS: Final = 1_000_000
_LONGEST_OUTPUT: Final = 64 << 20
_LONGEST_STRING: Final = 16 << 20

# What stands for the absent value of a pipeline's first command.
_NOTHING: Final = object()


class Execution:
    """One run of a template; used once."""

    def __init__(self, root: Any, functions: Mapping[str, Implementation]) -> None:
        self._root = root
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", root)]
        self._output: list[str] = []
        self._length = 0
        self._steps = 0

    def text(self, nodes: tuple[Node, ...]) -> str:
        """Return what the nodes print for the root value."""
        self._run(nodes, self._root)
        return "".join(self._output)

    def _run(self, nodes: tuple[Node, ...], dot: Any) -> str:
        """Print the nodes; return "break" or "continue" if one of them says so."""
        for node in nodes:
            self._step()
            match node:
                case Text(text):
                    self._print(text)
                case Pipeline():
                    value = self._pipeline(node, dot)
                    if not node.variables:
                        self._print(format_value(value))
                case Branch():
                    mark = len(self._variables)
                    left = self._branch(node, dot)
                    del self._variables[mark:]
                    if left:
                        return left
                case Leave(kind):
                    return kind
        return ""

    def _branch(self, node: Branch, dot: Any) -> str:
        if node.kind == "range":
            return self._range(node, dot)
        value = self._pipeline(node.pipeline, dot)
        if truth(value):
            return self._run(node.body, value if node.kind == "with" else dot)
        return self._run(node.otherwise, dot)

    def _range(self, node: Branch, dot: Any) -> str:
        # The variables hold the whole for the else branch, as Go has it.
        value = self._pipeline(node.pipeline, dot)
        names = node.pipeline.variables
        items: Iterable[tuple[Any, Any]]
        match value:
            case None:
                items = ()
            case list() | tuple():
                items = enumerate(value)
            case dict():
                items = [(key, value[key]) for key in sorted(value)]
            case _:
                raise TemplateError(f"range can't iterate over {format_value(value)}")
        empty = True
        mark = len(self._variables)
        for key, item in items:
            empty = False
            # One variable takes the element, two take key and element.
            parts = (key, item) if len(names) == 2 else (item,)
            for name, part in zip(names, parts, strict=False):
                self._set(name, part, declare=False)
            left = self._run(node.body, item)
            del self._variables[mark:]
            if left == "break":
                break
        return self._run(node.otherwise, dot) if empty else ""

    def _pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = _NOTHING
        for command in pipeline.commands:
            value = self._command(command, dot, value)
        for name in pipeline.variables:
            self._set(name, value, pipeline.declares)
        return value

    def _command(self, operands: tuple[Operand, ...], dot: Any, piped: Any) -> Any:
        self._step()
        first, rest = operands[0], operands[1:]
        if isinstance(first, Function):
            return self._call(first.name, rest, dot, piped)
        value = self._operand(first, dot, call=False)
        if callable(value):
            arguments = [self._operand(operand, dot) for operand in rest]
            return self._call_method(value, arguments + ([] if piped is _NOTHING else [piped]))
        if rest or piped is not _NOTHING:
            raise TemplateError(f"can't give argument to non-function {_describe(first)}")
        return value

    def _call(self, name: str, operands: tuple[Operand, ...], dot: Any, piped: Any) -> Any:
        if name in ("and", "or") and (operands or piped is not _NOTHING):
            value = None
            for operand in operands:
                value = self._operand(operand, dot)
                if truth(value) == (name == "or"):
                    return value
            return value if piped is _NOTHING else piped
        arguments = [self._operand(operand, dot) for operand in operands]
        if piped is not _NOTHING:
            arguments.append(piped)
        result = self._functions[name].invoke(name, arguments)
        if isinstance(result, str) and len(result) > _LONGEST_STRING:
            raise TemplateError(f"{name} makes more than {_LONGEST_STRING} characters")
        return result

    def _call_method(self, method: Any, arguments: list[Any]) -> Any:
        # The one kind of method that Docker's rows have: Label "name".
        if len(arguments) != 1 or not isinstance(arguments[0], str):
            raise TemplateError("a method of a row takes one string")
        return method(arguments[0])

    def _operand(self, operand: Operand, dot: Any, call: bool = True) -> Any:
        match operand:
            case Literal(value):
                return value
            case Function(name):
                return self._call(name, (), dot, _NOTHING)
            case Field(base, names):
                value = self._base(base, dot)
                for name in names:
                    value = _field(value, name, operand)
                if call and callable(value):
                    raise TemplateError(f"{operand} wants an argument")
                return value

    def _base(self, base: str | Pipeline | None, dot: Any) -> Any:
        if base is None:
            return dot
        if isinstance(base, Pipeline):
            return self._pipeline(base, dot)
        return next(value for name, value in reversed(self._variables) if name == base)

    def _set(self, name: str, value: Any, declare: bool) -> None:
        if declare:
            self._variables.append((name, value))
            return
        index = max(i for i, (known, _) in enumerate(self._variables) if known == name)
        self._variables[index] = (name, value)

    def _print(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST_OUTPUT:
            raise TemplateError(f"it prints more than {_LONGEST_OUTPUT} characters")
        self._output.append(text)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TemplateError(f"it takes more than {_MOST_STEPS} steps")


def _field(value: Any, name: str, whole: Field) -> Any:
    match value:
        case Map():
            return value.get(name)
        case dict() if name in value:
            return value[name]
        case Struct() if name in value.absent:
            return value.absent[name]
        case dict():
            _no_field(value, name, whole)
        case None:
            raise TemplateError(f"at <{whole}>: nil has no field {name}")
    raise TemplateError(f"at <{whole}>: can't evaluate field {name} in type {type_name(value)}")


def _no_field(value: dict[str, Any], name: str, whole: Field) -> NoReturn:
    import difflib

    close = difflib.get_close_matches(name, value, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(value)}"
    raise TemplateError(f'at <{whole}>: map has no entry for key "{name}" ({hint})')


def _describe(operand: Operand) -> str:
    return format_value(operand.value) if isinstance(operand, Literal) else str(operand)
