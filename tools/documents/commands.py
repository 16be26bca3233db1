"""Checks the commands that documents show with the commands' own parsers."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from maskdet.beam.options import parse_beam_options
from maskdet.cli.scoring_run import overrides
from maskdet.config import load_yaml
from maskdet.errors import ConfigError
from maskdet.named_configs import RECIPES, find_config
from maskdet.training.recipe import Recipe
from tools.documents.pages import ROOT, Block
from tools.documents.parsers import TOOLS, Command, command_of, commands, flags
from tools.documents.reference import SETTINGS

# Programs that are not ours; their arguments are not checked.
OTHERS = frozenset({"[", "docker", "flock", "gcloud", "git", "java", "kubectl", "pip", "pre-commit", "sleep", "test"})
_KEYWORDS = frozenset({"until", "while", "do", "done", "if", "then", "fi", "!"})
_OPERATORS = frozenset(";&|()")
_FILE_ENDINGS = frozenset({"csv", "json", "md", "parquet", "py", "txt", "yaml"})
# Folders of the repository: a path that begins with one of these has to exist.
_FOLDERS = ("configs/", "docker/", "kubernetes/", "tools/", "benchmarks/", ".ci/")


def problems(block: Block) -> list[str]:
    """What is wrong with the commands in a block of code, each with its place."""
    return [f"{block.place}: {problem}" for words in split(block.text) for problem in check(words)]


def split(text: str) -> Iterator[list[str]]:
    """The simple commands in a piece of shell text, without comments, redirections, keywords and assignments."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= _OPERATORS:
                if words := _plain(words):
                    yield words
                words = []
            else:
                words.append(token)


def _plain(words: Sequence[str]) -> list[str]:
    kept = list(words)
    for number, word in enumerate(kept):
        if set(word) <= set("<>"):
            kept = kept[:number]
            break
    while kept and (kept[0] in _KEYWORDS or re.match(r"[A-Z_]+=", kept[0])):
        kept.pop(0)
    if len(kept) > 5 and all(re.fullmatch(r"[\d*/,-]+", word) for word in kept[:5]):  # a line of a crontab
        kept = kept[5:]
    return kept[kept.index("maskdet") :] if "maskdet" in kept and kept[0] != "pip" else kept


def check(words: Sequence[str]) -> list[str]:
    """What is wrong with one command."""
    program, *arguments = words
    found = [f"{word}: no such file" for word in words if word.startswith(_FOLDERS) and not (ROOT / word).exists()]
    if program == "maskdet":
        return found + _check_maskdet(arguments)
    if program == "make":
        return found + [f"make {word}: no such verb" for word in arguments if "=" not in word and word not in verbs()]
    if program == "python":
        return found + _check_module(arguments)
    if program == "pip":
        named = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        asked = {extra for names in named for extra in names.split(",")}
        return found + [f"no such extra: {extra}" for extra in sorted(asked - extras())]
    if program not in OTHERS and not (ROOT / program).exists():
        found.append(f"unknown program: {program}")
    return found


def _check_maskdet(arguments: Sequence[str]) -> list[str]:
    if not arguments or arguments[0] in ("--help", "--version"):
        return []
    name, *rest = arguments
    if name not in _commands():
        return [f"maskdet {name}: no such command"]
    parsed, left, problem = _parse(_commands()[name], rest)
    if problem or parsed is None:
        return [f"maskdet {name}: {problem}"]
    config = getattr(parsed, "runner_config", None)
    try:
        parse_beam_options(left, str(ROOT / config) if config and _is_path(config) else config)
        if name in SETTINGS:
            _check_settings(SETTINGS[name][0], parsed)
    except ConfigError as error:
        return [f"maskdet {name}: {error}"]
    return []


def _check_settings(model: type[BaseModel], parsed: argparse.Namespace) -> None:
    """Validate the settings that a command line gives, together with its config file if that is one of ours.

    Raises:
        ConfigError: a setting does not exist or has a bad value.
    """
    config = parsed.config
    if config is not None and _is_path(config):
        if not config.startswith(_FOLDERS):
            return  # the reader's own file, which holds other settings that are needed
        config = ROOT / config
    elif config is not None and model is Recipe:
        config = find_config(config, RECIPES)
    given = overrides(parsed) if "source.template" in parsed else parsed.set
    load_yaml(model, config, given)


def _is_path(config: str) -> bool:
    """Whether a config is given as a path, rather than by the name of one that comes with the package."""
    return "/" in config or config.endswith(".yaml")


def _check_module(arguments: Sequence[str]) -> list[str]:
    if len(arguments) < 2 or arguments[0] != "-m":
        return [f"python {' '.join(arguments)}: expected python -m MODULE"]
    module, *rest = arguments[1:]
    if importlib.util.find_spec(module) is None:
        return [f"python -m {module}: no such module"]
    if not module.startswith(("tools.", "benchmarks.")):
        return []
    _, left, problem = _parse(command_of(module), rest)
    problem = problem or (f"unknown: {left}" if left else "")
    return [f"python -m {module}: {problem}"] if problem else []


def _parse(command: Command, arguments: Sequence[str]) -> tuple[argparse.Namespace | None, list[str], str]:
    """The parsed arguments, those left over, and what is wrong with them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, left = command.parser.parse_known_args(list(arguments))
    except SystemExit:
        return None, [], said.getvalue().strip().rpartition("\n")[2]
    if left and not command.passes_on:
        return parsed, left, f"unknown arguments {left}"
    return parsed, left, ""


@functools.cache
def _commands() -> dict[str, Command]:
    return commands()


@functools.cache
def verbs() -> frozenset[str]:
    """The verbs of the Makefile."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


@functools.cache
def extras() -> frozenset[str]:
    """The extras that the package can be installed with."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "extras_require" and isinstance(node.value, ast.Dict):
            return frozenset(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    raise LookupError("setup.py: no extras_require")


def inline_problem(code: str) -> str | None:
    """What is wrong with a piece of inline code, if it is a command, a flag or a setting."""
    words = code.split()
    if re.fullmatch(r"(maskdet|tests|tools|configs|benchmarks|docker|kubernetes|docs)/[\w/.-]*", code):
        return None if (ROOT / code).exists() else "no such file"
    if words[0] == "make" and len(words) == 2:
        return None if words[1] in verbs() else "no such verb"
    if words[0] == "maskdet" and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
        return None if words[1] in _commands() else "no such command"
    if re.fullmatch(r"--[a-z][\w-]*", words[0]):
        return None if words[0].partition("=")[0] in _flags() else "no command has such a flag"
    return _setting_problem(words[0])


def _setting_problem(word: str) -> str | None:
    """What is wrong with a word that looks like ``section.setting``, if a section has this name."""
    if not re.fullmatch(r"[a-z_]+\.[a-z_]+", re.split(r"[=:]", word)[0]):
        return None
    section, name = re.split(r"[.=:]", word)[:2]
    fields = _sections().get(section)
    known = fields is None or name in fields or name in _FILE_ENDINGS
    return None if known else f"no such setting of {section}"


@functools.cache
def _flags() -> frozenset[str]:
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    beam = _BeamArgumentParser(add_help=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(beam)
    ours = [command.parser for command in _commands().values()]
    ours += [command_of(module).parser for module in TOOLS]
    return frozenset(flag for parser in [*ours, beam] for flag in flags(parser))


@functools.cache
def _sections() -> dict[str, set[str]]:
    """The sections of all settings, and the names of the settings in each."""
    found: dict[str, set[str]] = {}
    for model, _ in SETTINGS.values():
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found.setdefault(name, set()).update(inner.model_fields)
    return found
