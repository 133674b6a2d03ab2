"""The reference pages, made from the models: docs/settings.md, docs/settings.schema.json, docs/wrong-stack-files.md.

``./orthanc-stack dev docs`` writes them; a test compares what is written with what the models say.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs.loader import parse
from configs.names import PROJECT
from configs.orthanc import COMPUTED
from configs.problems import described, path_of, report
from configs.promises import PROTECTIONS, RULES
from configs.settings import StackSettings

ROOT = Path(__file__).resolve().parents[1]
_WRONG = ROOT / "tests" / "wrong"


def pages() -> dict[Path, str]:
    """Each reference page with its text."""
    return {
        ROOT / "docs" / "settings.md": _settings_page(),
        ROOT / "docs" / "settings.schema.json": _schema(),
        ROOT / "docs" / "wrong-stack-files.md": _wrong_page(),
    }


def wrong_stack_files() -> Iterator[tuple[Path, str, str]]:
    """The wrong stack files that the project keeps, each with why it is wrong and what is printed for it."""
    for path in sorted(_WRONG.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        why = text.splitlines()[0].removeprefix("# ")
        config = yaml.safe_load(text)["config"]
        raw = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}
        yield path, why, report(parse(raw)[2], f"Pulumi.{path.stem}.yaml")


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"  wrote {path.relative_to(ROOT)}")


def _schema() -> str:
    schema = json.dumps(StackSettings.model_json_schema(by_alias=True), indent=2, sort_keys=True)
    return schema.replace("\\n", " ") + "\n"  # a description is one line


def _settings_page() -> str:
    lines = [
        "# Settings",
        "",
        f"What a stack file (`Pulumi.<stack>.yaml`) may say, under `config:`, each key with the prefix `{PROJECT}:`.",
        "Made from `configs/settings.py` by `./orthanc-stack dev docs`; [settings.schema.json](settings.schema.json) is the same as JSON",
        "Schema, of the keys without the prefix. A key that is not here is refused. Secrets are not settings: see",
        "[operating a stack](operating.md#where-data-and-secrets-are).",
        "",
    ]
    titles: dict[type[BaseModel], list[str]] = {}
    for title, model in _models(StackSettings, "The stack"):
        titles.setdefault(model, []).append(title)
    for model, where in titles.items():
        doc = re.sub(r"``", "`", (model.__doc__ or "").strip())
        lines += [f"## {', '.join(where)}", "", doc, "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(field) for field in model.model_fields.values()]
        lines.append("")
    lines += [
        "## Orthanc's own options",
        "",
        "A node's `orthanc:` block takes any option of Orthanc's and its plugins' by its own name. It is laid over `configs/orthanc/`:",
        "base, the environment's, PostgreSQL's. What the program computes cannot be set there:",
        "",
        "| option | instead |",
        "|---|---|",
        *(f"| `{path_of(key)}` | {instead} |" for key, instead in sorted(COMPUTED.items())),
        "",
        "What Orthanc takes for each is in `configs/orthanc/options.yaml`; with anything else it would not start, and it is refused.",
        "These end what a link promises, and are refused where it does:",
        "",
        "| option | where | not | because |",
        "|---|---|---|---|",
        *(f"| `{rule.option}` | {rule.at} | {rule.wrong} | {rule.because} |" for rule in sorted(RULES, key=lambda rule: rule.option)),
        "",
        "These protect a node. In prod, another value is refused, unless the node's `unsafe` names the option:",
        "",
        "| option | safe | otherwise |",
        "|---|---|---|",
        *(f"| `{name}` | {one.wanted} | {one.against} |" for name, one in sorted(PROTECTIONS.items())),
        "",
    ]
    return "\n".join(lines)


def _models(model: type[BaseModel], title: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield title, model
    for field in model.model_fields.values():
        for inner in _inside(field.annotation):
            yield from _models(inner, f"`{field.alias}`")


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in typing.get_args(annotation):
            yield from _inside(inner)


def _row(field: FieldInfo) -> str:
    meaning = described(field).replace("|", "\\|")
    return f"| `{field.alias}` | {_type(field.annotation)} | {_default(field)} | {meaning} |"


def _type(annotation: Any) -> str:
    """A type as a writer of YAML thinks of it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(args[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return _type(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "mapping"
    return {str: "text", int: "integer", float: "number", bool: "boolean"}.get(annotation, "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default is PydanticUndefined or isinstance(field.default, BaseModel):
        return "as below" if _type(field.annotation) == "mapping" and list(_inside(field.annotation)) else "none"
    if field.default is None or field.default == ():
        return "none"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value) if isinstance(value, list) else value}`"


def _wrong_page() -> str:
    lines = [
        "# Wrong stack files, and what each prints",
        "",
        "Made from `tests/wrong/` by `./orthanc-stack dev docs`; a test keeps it current. What can only be seen on the machine (a missing",
        "secret, a port that something else holds, a volume of another PostgreSQL) is said in the same form.",
        "",
    ]
    for path, why, printed in wrong_stack_files():
        body = "\n".join(path.read_text(encoding="utf-8").splitlines()[1:])
        lines += [f"## {path.stem}", "", why, "", "```yaml", body, "```", "", "```", printed.rstrip(), "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
