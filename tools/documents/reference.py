"""The reference pages, made from the code: commands, settings, tables, exit codes, failure codes and the API."""

from __future__ import annotations

import argparse
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
from pydantic import BaseModel

from maskdet import answer_schemas, schemas
from maskdet.cli.main import COMMANDS
from maskdet.config import ScoreSettings
from maskdet.errors import EXIT_CODES, FailureCode
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.preparation.settings import PrepareSettings
from maskdet.training.recipe import Recipe
from tools.documents.markdown import attribute_docstrings, prose, table
from tools.documents.parsers import commands

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, tuple[type[BaseModel], str]] = {
    "score": (ScoreSettings, "A file with all of them, to copy from: `configs/score.yaml`."),
    "evaluate": (EvaluateSettings, "Those of `score` apply, too. A file with these: `configs/evaluate.yaml`."),
    "prepare": (PrepareSettings, "An example: `configs/prepare.yaml`."),
    "train": (Recipe, "Examples: the recipes in `configs/train`."),
}
TABLES = {
    "predictions": schemas.predictions_schema,
    "failures": schemas.failures_schema,
    "no_face": schemas.no_face_schema,
    "compliance": schemas.compliance_schema,
    "corrections": schemas.corrections_schema,
    "changes": answer_schemas.changes_schema,
    "audit": answer_schemas.audit_schema,
    "audited": answer_schemas.audited_schema,
    "tracks": schemas.tracks_schema,
    "track_rates": schemas.track_rates_schema,
}
# Parts of the package whose modules a program may import; the others serve the commands.
API_ROOMS = ("inputs", "images", "faces", "model", "scoring", "tables", "compliance", "storage", "beam", "evaluation")


@functools.cache
def pages() -> dict[str, str]:
    """Every generated page: its path below ``docs`` and its Markdown."""
    return {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/tables.md": tables_page(),
        "reference/exit-codes.md": exit_codes_page(),
        "reference/failure-codes.md": failure_codes_page(),
        **api_pages(),
    }


def commands_page() -> str:
    """Every command with its description and flags."""
    parts = [
        "# Commands",
        "Flags that a command does not know go to Beam, such as `--runner=FlinkRunner`. "
        "[Exit codes](exit-codes.md) are the same for all.",
        table(["command", "what it does"], ([f"[`maskdet {name}`](#{name})", text] for name, text in COMMANDS.items())),
    ]
    for name, command in commands().items():
        arguments = table(["argument", "meaning"], _arguments(command.parser))
        parts += [f"## {name}", _description(command.parser), arguments]
    return _page(parts)


def _description(parser: argparse.ArgumentParser) -> str:
    """A command's description, with indented lines as a block of code."""
    blocks = re.split(r"\n\s*\n", (parser.description or "").strip())
    lines = []
    for block in blocks:
        if block.startswith("    "):
            lines.append("```text\n" + "\n".join(line[4:] for line in block.splitlines()) + "\n```")
        else:
            lines.append(re.sub(r"<([^>]+)>", r"`<\1>`", prose(block)))
    return "\n\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for name, step in action.choices.items():
                yield from ([f"{name}: {argument}", meaning] for argument, meaning in _arguments(step))
            continue
        value = "" if action.nargs == 0 else " " + str(action.metavar or action.dest).upper().rpartition(".")[2]
        name = ", ".join(action.option_strings) + value if action.option_strings else str(action.metavar or action.dest)
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        yield [f"`{name}`", prose(text) + (" Required." if action.required and action.option_strings else "")]


def settings_page() -> str:
    """Every setting of every command: type, default, meaning."""
    parts = [
        "# Settings",
        "Settings are written in a YAML file (`--config FILE`). Single settings may be given on the command line "
        "(`--set section.key=value`, the value in YAML), which wins over the file. An unknown key is refused.",
    ]
    for command, (model, note) in SETTINGS.items():
        parts += [f"## {command}", prose(model.__doc__ or "").strip(), note]
        inherited = set(ScoreSettings.model_fields) if model is EvaluateSettings else set()
        parts += _sections(model, set(), skip=inherited - {"faces", "video"})
    return _page(parts)


def _sections(
    model: type[BaseModel], seen: set[type[BaseModel]], prefix: str = "", skip: Iterable[str] = ()
) -> Iterator[str]:
    """A table of a model's own settings; then the name, docstring and table of each section that is not in ``seen``."""
    schema = model.model_json_schema()
    notes = attribute_docstrings(model)
    rows: list[list[str]] = []
    sections: dict[type[BaseModel], list[str]] = {}
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        inner = models_in(field.annotation)
        for one in inner:
            sections.setdefault(one, []).append(name)
        if field.annotation in inner:
            continue
        described = schema["properties"][name]
        default = "*required*" if field.is_required() else _default(described.get("default"))
        kind = _kind(described, schema.get("$defs", {}))
        rows.append([f"`{prefix}{name}`", kind, default, prose(notes.get(name, ""))])
    if rows:
        yield table(["setting", "type", "default", "meaning"], rows)
    for section, names in sections.items():
        if section in seen:
            continue
        seen.add(section)
        direct = model.model_fields[names[0]].annotation is section
        yield "### " + ", ".join(names)
        note = notes.get(names[0], "") if direct else ""
        yield " ".join(filter(None, [prose((section.__doc__ or "").strip()), prose(note)]))
        yield from _sections(section, seen, f"{names[0]}." if direct else "")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings models in an annotation, such as that of a tuple's items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def _default(value: object) -> str:
    return "—" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _kind(described: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The type of a setting, in words, from its JSON schema."""
    if "$ref" in described:
        return "section, see below" if "properties" in definitions[described["$ref"].rpartition("/")[2]] else "any"
    if "anyOf" in described:
        kinds = [_kind(one, definitions) for one in described["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in described or "const" in described:
        return " or ".join(f"`{value}`" for value in described.get("enum", [described.get("const")]))
    kind = str(described.get("type", "any"))
    if kind == "array":
        return "list of " + (_kind(described["items"], definitions) if "items" in described else "values")
    if kind == "object":
        values = described.get("additionalProperties")
        return "mapping to " + (_kind(values, definitions) if isinstance(values, dict) else "values")
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {described[key]:g}" for key, sign in signs.items() if key in described]
    return " ".join([words.get(kind, kind), ", ".join(bounds)]).strip()


def tables_page() -> str:
    """Every table with its columns, as in the files' own schemas."""
    parts = [
        "# Tables",
        "Parquet files with zstd compression. Each column's description is in the file's schema (field metadata, key "
        "`description`). Partition keys are folders (`site=north/`); other keys are columns of type string.",
    ]
    for name, schema in TABLES.items():
        rows = [_column(field) for field in schema()]
        parts += [f"## {name}", _first_line(schema), table(["column", "type", "may be null", "meaning"], rows)]
    return _page(parts)


def _first_line(function: Any) -> str:
    return str(function.__doc__).splitlines()[0].removeprefix("Schema of the ").capitalize()


def _column(field: pa.Field) -> list[str]:
    return [
        f"`{field.name}`",
        str(field.type),
        "yes" if field.nullable else "no",
        field.metadata[b"description"].decode(),
    ]


def exit_codes_page() -> str:
    """What each exit code means."""
    return _page(
        [
            "# Exit codes",
            "Every command ends with one of these. A script may rely on them.",
            table(["code", "meaning"], ([str(code), meaning] for code, meaning in EXIT_CODES.items())),
        ]
    )


def failure_codes_page() -> str:
    """Why an image fails, at which stage, and whether another try may help."""
    notes = attribute_docstrings(FailureCode)
    rows = [
        [f"`{code.value}`", f"`{code.stage.value}`", "yes" if code.transient else "no", prose(notes.get(code.name, ""))]
        for code in FailureCode
    ]
    return _page(
        [
            "# Failure codes",
            "An image that cannot be scored becomes one row of the table `failures`, with one of these codes. Codes "
            "are stable: you may filter and alert on them. A *transient* failure may vanish by itself, so the next "
            "run over the same output tries such an image again.",
            table(["code", "stage", "transient", "meaning"], rows),
        ]
    )


def api_pages() -> dict[str, str]:
    """One page for the package, and one for each part of it that a program may import from."""
    public = [
        "# Python API",
        "What `import maskdet` provides, then the parts of the package that a program may import from.",
        "::: maskdet",
    ]
    rooms = {}
    for room in API_ROOMS:
        modules = sorted((ROOT / "maskdet" / room).glob("*.py"))
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules if path.stem != "__init__"]
        if (ROOT / "maskdet" / room / "__init__.py").read_text(encoding="utf-8").count("\n") > 1:
            names.insert(0, f"maskdet.{room}")
        rooms[f"reference/api/{room}.md"] = _page([f"# maskdet.{room}", *(f"::: {name}" for name in names)])
    public.append("\n".join(f"- [`maskdet.{room}`]({room}.md)" for room in API_ROOMS))
    return {"reference/api/index.md": _page(public), **rooms}


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
