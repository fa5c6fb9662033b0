"""The text of a template becomes a tree of nodes.

Owns the syntax: pipelines, variables, control structures. Never evaluates. Called by Template.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final, NamedTuple, NoReturn

from rootless.cli.template.lex import Piece, TemplateError, Token, constant, split

# Deeper than anyone writes, and far from Python's own limit.
_DEEPEST: Final = 50
_WORDS: Final = {"true": True, "false": False, "nil": None}


class Text(NamedTuple):
    """Text outside of actions."""

    text: str


class Literal(NamedTuple):
    """A constant: string, number, bool or nil."""

    value: Any


class Function(NamedTuple):
    """A function's name."""

    name: str


class Field(NamedTuple):
    """``.A.B`` (base None: of the dot), ``$x.A`` or ``(…).A``; without fields the base itself."""

    base: str | Pipeline | None
    names: tuple[str, ...]

    def __str__(self) -> str:
        if isinstance(self.base, Pipeline):
            return "(…)" + "".join(f".{name}" for name in self.names)
        return (self.base or "") + "".join(f".{name}" for name in self.names) or "."


class Pipeline(NamedTuple):
    """Commands whose results are handed on, and the variables that take the last one."""

    commands: tuple[tuple[Operand, ...], ...]
    variables: tuple[str, ...] = ()
    declares: bool = False


class Branch(NamedTuple):
    """``if``, ``with`` or ``range``, up to its ``end``."""

    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


class Leave(NamedTuple):
    """``break`` or ``continue``."""

    kind: str


Operand = Literal | Function | Field
Node = Text | Pipeline | Branch | Leave


def parse(source: str, functions: Container[str]) -> tuple[Node, ...]:
    """Return the nodes of a template that may call ``functions``; TemplateError if it is none."""
    parser = _Parser(split(source), functions)
    nodes, ended = parser.block()
    if ended:
        raise TemplateError(f"unexpected {{{{{ended}}}}}")
    return nodes


class _Parser:
    """Recursive descent over the pieces, and over the tokens of the action at hand."""

    def __init__(self, pieces: list[Piece], functions: Container[str]) -> None:
        self._pieces = iter(pieces)
        self._functions = functions
        self._tokens: list[Token] = []
        self._variables = ["$"]
        self._depth = 0
        self._loops = 0

    def block(self) -> tuple[tuple[Node, ...], str]:
        """Return the nodes up to an ``end`` or ``else``, and that word ("" at the very end).

        The tokens after ``else`` stay for the caller.
        """
        nodes: list[Node] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                if piece:
                    nodes.append(Text(piece))
                continue
            self._tokens = piece[::-1]
            self._skip_space()
            word = self._word()
            if word in ("if", "with", "range"):
                self._take()
                nodes.append(self._branch(word))
            elif word in ("break", "continue"):
                self._take()
                self._finish(word)
                if not self._loops:
                    raise TemplateError(f"{{{{{word}}}}} outside {{{{range}}}}")
                nodes.append(Leave(word))
            elif word == "end":
                self._take()
                self._finish(word)
                return tuple(nodes), word
            elif word == "else":
                self._take()
                return tuple(nodes), word
            elif word in ("define", "template", "block"):
                raise TemplateError(f"{{{{{word}}}}} is not supported")
            else:
                nodes.append(self._pipeline("command"))
                self._finish("command")
        return tuple(nodes), ""

    def _branch(self, kind: str) -> Branch:
        self._enter()
        scope = len(self._variables)
        pipeline = self._pipeline(kind)
        self._finish(kind)
        self._loops += kind == "range"
        inner = len(self._variables)
        body, ended = self.block()
        del self._variables[inner:]
        self._loops -= kind == "range"
        otherwise: tuple[Node, ...] = ()
        if ended == "else":
            self._skip_space()
            word = self._word()
            if word and word == kind and kind != "range":
                self._take()
                otherwise, ended = (self._branch(word),), "end"
            else:
                self._finish("else")
                otherwise, ended = self.block()
                if ended == "else":
                    raise TemplateError("unexpected {{else}}")
        if ended != "end":
            raise TemplateError(
                f"unexpected end of the template: {{{{{kind}}}}} has no {{{{end}}}}"
            )
        del self._variables[scope:]
        self._depth -= 1
        return Branch(kind, pipeline, body, otherwise)

    def _pipeline(self, context: str) -> Pipeline:
        """Read ``[$x [, $y] :=|=] command | command …`` up to the action's end or a ")"."""
        self._enter()
        variables, declares = self._assignment(context)
        commands = [self._command(context)]
        while self._accept("|"):
            commands.append(self._command(context))
            if not isinstance(commands[-1][0], (Function, Field)):
                raise TemplateError("only functions can stand after a |")
        if declares:
            self._variables += variables
        self._depth -= 1
        return Pipeline(tuple(commands), variables, declares)

    def _assignment(self, context: str) -> tuple[tuple[str, ...], bool]:
        rest = [token for token in reversed(self._tokens) if token.kind != "space"]
        texts = [token.text for token in rest[:4]]
        if not rest or rest[0].kind != "variable":
            return (), False
        if texts[1:2] in ([":="], ["="]):
            names = rest[:1]
        elif context == "range" and texts[1:2] == [","] and texts[3:4] in ([":="], ["="]):
            names = [rest[0], rest[2]]
        else:
            return (), False
        if any(name.kind != "variable" or name.text == "$" for name in names):
            raise TemplateError("only a variable such as $x can be set")
        while (sign := self._take()).text not in (":=", "="):
            pass
        declares = sign.text == ":="
        for name in names:
            if not declares and name.text not in self._variables:
                raise TemplateError(f'undefined variable "{name.text}"')
        return tuple(name.text for name in names), declares

    def _command(self, context: str) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        self._skip_space()
        while self._tokens and self._tokens[-1].text not in ("|", ")"):
            operands.append(self._operand(context))
            if not self._ends_operand():
                self._unexpected(context)
            self._skip_space()
        if not operands:
            raise TemplateError(f"missing value for {context}")
        if operands[0] == Literal(None):
            raise TemplateError("nil is not a command")
        return tuple(operands)

    def _ends_operand(self) -> bool:
        if not self._tokens:
            return True
        return self._tokens[-1].kind == "space" or self._tokens[-1].text in ("|", ")")

    def _operand(self, context: str) -> Operand:
        token = self._take()
        base: str | Pipeline | None
        match token.kind:
            case "string" | "char" | "raw" | "number":
                return Literal(constant(token))
            case "word" if token.text in _WORDS:
                return Literal(_WORDS[token.text])
            case "word":
                if token.text not in self._functions:
                    raise TemplateError(f'function "{token.text}" not defined')
                return Function(token.text)
            case "dot":
                return Field(None, ())
            case "field":
                return Field(None, (token.text[1:], *self._fields()))
            case "variable":
                if token.text not in self._variables:
                    raise TemplateError(f'undefined variable "{token.text}"')
                base = token.text
            case "sign" if token.text == "(":
                base = self._pipeline("parentheses")
                if not self._accept(")"):
                    raise TemplateError("unclosed left parenthesis")
            case _:
                self._tokens.append(token)
                self._unexpected(context)
        return Field(base, tuple(self._fields()))

    def _fields(self) -> list[str]:
        names = []
        while self._tokens and self._tokens[-1].kind == "field":
            names.append(self._take().text[1:])
        return names

    def _take(self) -> Token:
        return self._tokens.pop()

    def _word(self) -> str:
        return self._tokens[-1].text if self._tokens and self._tokens[-1].kind == "word" else ""

    def _accept(self, text: str) -> bool:
        self._skip_space()
        if self._tokens and self._tokens[-1].text == text:
            self._take()
            return True
        return False

    def _skip_space(self) -> None:
        while self._tokens and self._tokens[-1].kind == "space":
            self._tokens.pop()

    def _finish(self, context: str) -> None:
        self._skip_space()
        if self._tokens:
            self._unexpected(context)

    def _unexpected(self, context: str) -> NoReturn:
        raise TemplateError(f'unexpected "{self._tokens[-1].text}" in {context}')

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise TemplateError(f"it is nested more than {_DEEPEST} deep")
