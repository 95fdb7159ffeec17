"""Parts by name: the one way from a word of a config, a flag or a system's argument to a part.

A part is named by a word, "cosine"; by a call of literals, "min_snr(3)", which is parsed and never evaluated; by a mapping,
{"name": "min_snr", "gamma": 3}; or it is given as it is.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffux.errors import REFUSALS, UserError, one_sentence, unknown


def pick(what: str, name: Any, parts: Mapping[str, Any]) -> Any:
    """`parts[name]`; UserError with the near names where there is none."""
    if not isinstance(name, str) or name not in parts:
        raise unknown(what, name, parts)
    return parts[name]


def public(module: Any) -> dict[str, Any]:
    """The parts that a module offers and the functions that make them, by name; names with an underscore are its own.

    Example:
        >>> from diffux import weightings
        >>> sorted(public(weightings))[:3]
        ['clipped_snr', 'edm', 'importance']
    """
    own = {name: value for name, value in vars(module).items() if callable(value) and not inspect.isclass(value)}
    return {name: value for name, value in own.items()
            if not name.startswith("_") and getattr(value, "__module__", "").startswith(module.__name__)}  # fmt: skip


def parse(what: str, text: str, around: bool = False) -> tuple[str, list[Any], dict[str, Any]]:
    """(name, arguments, options) of a word or of a call whose arguments are literals or single words; of a part that goes `around`
    another one, also calls, which stay text.

    Raises UserError for text of another form.

    Example:
        >>> parse("guidance", "classifier_free(3, drop=('text',))")
        ('classifier_free', [3], {'drop': ('text',)})
        >>> parse("guidance", "between(classifier_free(3), high=5.0)", around=True)
        ('between', ['classifier_free(3)'], {'high': 5.0})
    """

    def value(node):
        return ast.unparse(node) if around and isinstance(node, ast.Call) else literal(ast.unparse(node))

    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            options = {keyword.arg: value(keyword.value) for keyword in tree.keywords}
            if None not in options:
                return tree.func.id, [value(argument) for argument in tree.args], options
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    if re.fullmatch(r"\w*", text):
        return text, [], {}
    raise UserError(f"a {what} is a name, or a call of numbers and words such as name(3, option=0.5), got {text[:80]!r}")


def literal(text: str) -> Any:
    """The Python literal that `text` is, or the single word; ValueError for anything else.

    Example:
        >>> literal("(1, 2)"), literal("upper")
        ((1, 2), 'upper')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        if not text.isidentifier():
            raise ValueError(f"{text[:80]!r} is no number, tuple, True, False, None or single word") from error
        return text


def make(what: str, spec: Any, parts: Mapping[str, Any], table: bool = False, /, **context: Any) -> Any:
    """The part that `spec` names among `parts`, which are finished ones and functions that make one.

    `what` is the kind of part, for the sentence that refuses another. Arguments of the function that `context` holds, such as the
    process, are filled from there unless `spec` gives them. A part is returned as it is, and so is a sequence of numbers where such
    a `table` is a part of this kind. Raises UserError for an unknown name or option, for values that the function refuses, and for
    data that are no part.

    Example:
        >>> from diffux import weightings
        >>> make("weighting", "min_snr(3)", public(weightings)).high
        3
    """
    if isinstance(spec, str):
        name, arguments, options = parse(what, spec)
    elif isinstance(spec, Mapping):
        arguments, options = [], dict(spec)
        name = options.pop("name", None)
        if not isinstance(name, str):
            example = {"name": next(iter(parts))}
            raise UserError(f"a {what} given as a mapping needs its name, as in {example}, got {dict(spec)!r}")
    elif isinstance(spec, types.NoneType | bool | int | float | list | tuple) and not (table and _numbers(spec)):
        raise UserError(f"a {what} is a name, a name with its arguments, or a part made in Python, got {spec!r}")
    else:
        return spec
    value = pick(what, name, parts)
    if not inspect.isfunction(value):
        if arguments or options:
            raise UserError(f"the {what} {name} takes no arguments, got {', '.join(map(str, [*arguments, *options]))}")
        return value
    return call(f"{what} {name}", value, options, arguments, context)


def accepts(function: Callable) -> tuple[list[str], list[str]]:
    """The names of the parameters of `function`, and of those without a default."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in named], [p.name for p in named if p.default is p.empty]


def call(what: str, function: Callable, options: Mapping[str, Any], arguments: Sequence[Any] = (),
         context: Mapping[str, Any] = {}) -> Any:  # fmt: skip
    """`function(**options)`, with `arguments` for the first parameters that `context` does not fill; sequences become tuples.

    Raises UserError for an option that the function does not have, one that is missing, a value of another type than its
    annotation says, and for what the function itself refuses.
    """
    accepted, needed = accepts(function)
    parameters = inspect.signature(function).parameters
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    free, options = [name for name in accepted if name not in context], dict(options)
    if len(arguments) > len(free):
        raise UserError(f"{what} takes at most {len(free)} arguments, got {len(arguments)}")
    for name, value in zip(free, arguments, strict=False):
        if name in options:
            raise UserError(f"{what} got {name} twice")
        options[name] = value
    for key, value in options.items():
        if key in accepted:
            _check_type(what, parameters[key], value)
        elif not passes_on:
            raise unknown(f"option of {what}", key, free)
    options |= {key: value for key, value in context.items() if key in accepted and key not in options}
    missing = [key for key in needed if key not in options]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}")
    # Sequences come back from JSON as lists, and a part's static fields must be hashable.
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return function(**options)
    except UserError as error:
        raise type(error)(f"{what}: {error}") from error
    except TypeError as error:
        # What `function` passes on was refused further down: say it as if it had been refused here.
        refused = re.search("unexpected keyword argument '(.*?)'", str(error))
        if refused:
            raise unknown(f"option of {what}", refused[1], free) from error
        raise UserError(f"{what}: {one_sentence(error)}") from error
    except REFUSALS as error:
        raise UserError(f"{what}: {one_sentence(error)}") from error


_KINDS = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "True or False", "None": "None",
          "sequence": "a sequence of numbers"}  # fmt: skip


def _check_type(what: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise UserError where a value is not what the parameter's annotation, or else its default, says."""
    stated = parameter.annotation
    wanted = (stated if isinstance(stated, str) else inspect.formatannotation(stated)).split(" | ")
    if parameter.annotation in (parameter.empty, "Any") and isinstance(parameter.default, float | tuple):
        wanted = ["float", "sequence"] if isinstance(parameter.default, float) else ["sequence"]
    is_bool = isinstance(value, bool)
    kinds = {
        "int": isinstance(value, int) and not is_bool,
        "float": isinstance(value, int | float) and not is_bool,
        "str": isinstance(value, str),
        "bool": is_bool,
        "None": value is None,
        "sequence": isinstance(value, list | tuple) and all(_numbers(part) for part in value),
    }
    if all(kind in kinds for kind in wanted) and not any(kinds[kind] for kind in wanted):
        raise UserError(f"{parameter.name} of {what} must be {' or '.join(_KINDS[kind] for kind in wanted)}, got {value!r}")


def _numbers(value: Any) -> bool:
    nested = isinstance(value, list | tuple) and all(_numbers(part) for part in value)
    return nested or (isinstance(value, int | float) and not isinstance(value, bool))
