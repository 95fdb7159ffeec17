"""What the commands share: their flags, and errors as one sentence."""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from diffux.cli import _ends
from diffux.config.schema import FLAGS, Key, check_value
from diffux.errors import UserError, one_sentence, unknown
from diffux.naming import literal


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, and whose flags are never abbreviated; --n_steps is read as --n-steps.

    The flags that `schema.FLAGS` has a line for have their type, bounds, default and help from there.
    """

    def __init__(self, command: str, description: str):
        super().__init__(prog=f"diffux {command}", description=description, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        self.keys: dict[str, Key] = {}

    def add(self, name: str, known: str | None = None, **more: Any) -> None:
        """The flag --name, as the schema has it, where it may stand under another name, `known`."""
        key = self.keys[name] = FLAGS[known or name]
        kind = key.kind or type(key.default)
        self.add_argument(f"--{name}", type=kind, default=key.default, help=key.said, **more)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The flags, of which none may be left over."""
        flags, left = self.parse_with_config(arguments)
        if left:
            raise UserError(f"unexpected argument {left[0]!r} (see --help)")
        return flags

    def parse_with_config(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(the flags, what is left of the form --config.key=value, and values that stand apart from it)."""
        arguments = [_hyphens(argument) for argument in arguments]
        flags, left = self.parse_known_args(arguments)
        for argument in left:
            if argument.startswith("-") and not argument.startswith("--config."):
                known = {option for action in self._actions for option in action.option_strings if option.startswith("--")}
                raise unknown("flag", argument.partition("=")[0], known - {"--config.KEY"})
        for name, key in self.keys.items():
            check_value(f"--{name}", key, getattr(flags, name.replace("-", "_")))
        named = {argument.partition("=")[0] for argument in arguments}
        flags.said = [action.dest for action in self._actions if named.intersection(action.option_strings)]
        return flags, left

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def _hyphens(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or name.startswith("--config."):
        return argument
    return f"{name.replace('_', '-')}{equals}{value}"


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str], interrupts: _ends.Interrupts | None = None) -> int:
    """The exit status of `main(arguments)`: a UserError is printed as `error: ...` and gives its own status.

    DIFFUX_TRACEBACK=1 prints the traceback as well. One of several processes ends here. interrupts: what knows of Ctrl-C where
    this is the whole process.
    """
    try:
        return main(arguments)
    except UserError as error:
        if os.environ.get("DIFFUX_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return _leave(error.status)
    except BrokenPipeError:  # of `diffux list ... | head`
        _ends.flush()
        return 0
    except KeyboardInterrupt as error:
        if interrupts is not None:
            interrupts.heeded()
        _ends.say_interrupted(str(error))
        return _leave(_ends.INTERRUPTED)
    except Exception:
        if interrupts is not None and interrupts.came():  # what a library made of it
            interrupts.heeded()
            _ends.say_interrupted()
            return _leave(_ends.INTERRUPTED)
        if not _several():
            raise
        traceback.print_exc()
        return _leave(1)


def _several() -> bool:
    distributed = sys.modules.get("diffux.devices.together")
    return distributed is not None and distributed.several()


def _leave(status: int) -> int:
    if _several():
        sys.modules["diffux.devices.together"].leave(status)
    return status


def refuse(flags: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise UserError where one of the flags `names`, which would change nothing, was given."""
    for name in flags.said:
        if name in names:
            raise UserError(f"--{name.replace('_', '-')} {why}")


def pairs(flag: str, words: Sequence[str] | None) -> dict[str, str]:
    """{"label": "3"} of ["label=3"]; UserError for what has another form, and for a name that comes twice."""
    parsed = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name in parsed:
            raise UserError(f"--{flag} is name=value, once for every name, got {word!r}")
        parsed[name] = value
    return parsed


def options(words: Sequence[str] | None) -> dict[str, Any]:
    """{"order": 2, "variance": "upper"} of ["order=2", "variance=upper"]: Python literals, or one bare word.

    Raises UserError for what has another form, and for a name that comes twice.
    """
    parsed = {}
    for name, value in pairs("option", words).items():
        try:
            parsed[name] = literal(value)
        except ValueError as error:
            message = f"--option {name + '=' + value!r} has no number, tuple, True, False, None or single word as its value"
            raise UserError(message) from error
    return parsed


def add_use(parser: Parser) -> None:
    """The flag of files of parts outside the package; `listing.use` reads them."""
    parser.add_argument("--use", action="append", default=[], metavar="FILE", help="a Python file of your own parts; several times")


def add_processes(parser: Parser) -> None:
    """The flags of a run of several processes; `begin` reads them."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 of several listens (docs/many_hosts.md)")
    parser.add("processes", metavar="N")
    parser.add("process", metavar="I")
    parser.add("start-timeout", metavar="SECONDS")
    parser.add_argument("--distributed", action="store_true", help="refuse to be alone where no other processes are found")


def begin(flags: argparse.Namespace) -> None:
    """Become one of several processes if the flags of `add_processes`, or what is around this process, say so."""
    from diffux.devices import together as distributed

    distributed.initialize(
        flags.coordinator, flags.processes, flags.process, required=flags.distributed, start_timeout=flags.start_timeout
    )


def add_samples(parser: Parser) -> None:
    """The flags that say what is drawn, of which models, and by which walk; `models` and `asked` read them."""
    parser.add_argument("--task", default="once", metavar="NAME", help="once, cascade, vote(draws=9), best_of, restore, ...")
    parser.add_argument("--model", action="append", metavar="NAME=RUN", help="of a task that has several; several times")
    parser.add_argument("--given", action="append", metavar="NAME=WORD", help="what is asked: label=cat,dog or low=photo.png")
    parser.add_argument("--label", metavar="L[,L...]", help="short for --given label=L; every class in turn by default")
    parser.add_argument("--solver", metavar="NAME", help="ddim, unipc, ... (docs/solvers.md); the model's own by default")
    parser.add("steps")
    parser.add("eta")
    parser.add_argument("--grid", metavar="NAME", help="where the steps are: uniform, log_snr, karras(rho=5), ...")
    parser.add_argument("--option", action="append", metavar="NAME=VALUE", help="of the solver, as order=2; several times")
    parser.add_argument("--guidance", action="append", metavar="CALL", help="a classifier-free scale, or a transform such as "
                        "classifier_free(3); several times, the first innermost")  # fmt: skip
    parser.add_argument(
        "--net", action="append", metavar="NAME=RUN", help="a network that the guidance names, or that a model is built on"
    )
    parser.add_argument("--classifier", metavar="RUN", help="short for --guidance 'classifier(SCALE)' --net classifier=RUN")
    parser.add("classifier-scale", metavar="SCALE")
    parser.add("seed")
    parser.add("batch")
    add_weights(parser)
    add_use(parser)


def add_weights(parser: Parser) -> None:
    """The flags that say which weights of a run are taken; `weights` reads them."""
    parser.add_argument("--checkpoint", default="last", metavar="STEP", help="last, best (held-out loss), or a step")
    parser.add_argument("--average", metavar="NAME", help="0.999, power_0.05, ...; of any width after the run (docs/averages.md)")
    parser.add_argument("--raw", action="store_true", help="the weights themselves instead of their average")


def weights(flags: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_weights` say, as `runs.restore.load` takes it."""
    digits = flags.checkpoint.isascii() and flags.checkpoint.isdecimal()
    step = int(flags.checkpoint) if digits and len(flags.checkpoint) < 20 else flags.checkpoint
    return {"step": step, "average": flags.average, "raw": flags.raw}


def walk(flags: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_samples` say of the walk, as `sampling.files.models` takes it."""
    if flags.classifier is None:
        refuse(flags, ["classifier_scale"], "belongs to --classifier")
    nets, chain = pairs("net", flags.net), [_guidance(word) for word in flags.guidance or ()]
    if flags.classifier is not None:
        scale = 1.0 if flags.classifier_scale is None else flags.classifier_scale
        nets, chain = nets | {"classifier": flags.classifier}, [f"classifier({scale})", *chain]
    named = {key: getattr(flags, key) for key in ("solver", "steps", "eta", "grid")}
    return named | {"options": options(flags.option), "guidance": chain or None, "nets": nets}


def _guidance(word: str) -> float | str:
    try:
        scale = float(word)
    except ValueError:
        return word
    if not math.isfinite(scale):
        raise UserError(f"--guidance is a finite scale, or a transform such as classifier_free(3), got {word}")
    return scale


def directories(flags: argparse.Namespace, own: str | None) -> dict[str, str]:
    """{name: run} of --model, or of the command's own flag for one run; UserError unless it is one of them."""
    named = pairs("model", flags.model)
    if bool(named) == (own is not None):
        raise UserError("say which run: --workdir DIR, or --model NAME=RUN for each model of a --task")
    return named or {"model": own}


def asked(flags: argparse.Namespace) -> dict[str, str]:
    """{field: word} of --given and --label."""
    given = pairs("given", flags.given)
    if flags.label is not None and "label" in given:
        raise UserError("--label and --given label are one thing: give one of them")
    return given | ({} if flags.label is None else {"label": flags.label})
