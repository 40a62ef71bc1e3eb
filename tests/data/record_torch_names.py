"""Write `tlogs/levels/torch_names.py` from the torch that is installed: `python tests/data/record_torch_names.py`.

With a torch as new as the one recorded, or newer, the file is written again: names that torch no longer has go, and
those that the file lacks are noted in `SINCE` with this version. With an older torch nothing is written; the script
says whether the file, less the names since then, is what that torch registers, and exits with 1 if it is not.
`make format` brings what it writes into its form.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "client" / "tlogs" / "levels" / "torch_names.py"
WIDTH = 96
"""Of a piece of a description, so that its line fits."""

HEAD = '''\
"""The names that torch {version} registers, recorded from it by `tests/data/record_torch_names.py`.

They decide where no torch is loaded: in a reader, a launcher, a data server. Where torch is loaded its own registry
is the truth, and nothing here is looked at. `SINCE` has the names that older versions of torch lack.
"""

from __future__ import annotations

from typing import Final

TORCH_VERSION: Final = "{version}"

SINCE: Final[dict[str, str]] = {since}
"""The names that {first} did not have, each with the version of torch in which it was first recorded."""

COMPONENTS: Final[dict[str, tuple[str, ...]]] = {components}
"""Alias to its loggers."""

ARTIFACTS: Final[dict[str, tuple[bool, bool, str | None, str]]] = {artifacts}
"""Name to (off by default, visible in the short help, format of its own, description)."""

ARTIFACT_MODULES: Final[dict[str, tuple[str, ...]]] = {modules}
"""Name to the modules that emit it, as torch's source has them; torch emits no others."""

KEYWORDS: Final[dict[str, bool]] = {keywords}
"""The keywords of set_logs() in the order in which torch applies them; true for an artifact."""
'''
FIRST_RECORDED = "2.13.0"


def installed() -> dict[str, Any]:
    """What the installed torch registers, and says in its source."""
    import torch
    from torch._logging import _internal

    registry = _internal.log_registry
    off, visible = registry.off_by_default_artifact_names, registry.visible_artifacts
    formats, descriptions = registry.artifact_log_formatters, registry.artifact_descriptions
    components = {alias: tuple(loggers) for alias, loggers in registry.log_alias_to_log_qnames.items()}
    artifacts = {
        name: (name in off, name in visible, formats[name]._fmt if name in formats else None, descriptions[name])
        for name in sorted(registry.artifact_names)
    }
    return {
        "TORCH_VERSION": torch.__version__.partition("+")[0],
        "COMPONENTS": components,
        "ARTIFACTS": artifacts,
        "ARTIFACT_MODULES": emitters(Path(torch.__file__).parent, artifacts),
        "KEYWORDS": {name: name in artifacts for name in keywords(_internal.set_logs)},
    }


def keywords(set_logs: Any) -> list[str]:
    """The keywords of torch's set_logs(), in the order in which it applies them: that of the call at its end."""
    function = ast.parse(inspect.getsource(set_logs)).body[0]
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    last = max(calls, key=lambda call: len(call.keywords))
    applied = [word.value.id for word in last.keywords if isinstance(word.value, ast.Name)]
    named = set(inspect.signature(set_logs).parameters) - {"modules"}
    if set(applied) != named:
        raise SystemExit(
            f"set_logs() does not hand on its keywords one by one any more: {named.symmetric_difference(applied)}"
        )
    return applied


def emitters(root: Path, artifacts: Any) -> dict[str, tuple[str, ...]]:
    """The modules of torch that ask for each artifact's logger, by its name or by a constant of theirs."""
    found: dict[str, set[str]] = {}
    pattern = re.compile(r"getArtifactLogger\(\s*(__name__|\"[\w.]+\"),\s*(\"?\w+\"?),?\s*\)")
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        own = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(errors="replace")
        for module, given in pattern.findall(text):
            constant = re.search(rf"^{given} = (\"\w+\")$", text, re.MULTILINE)
            artifact = (constant[1] if constant else given).strip('"')
            if artifact in artifacts:
                found.setdefault(artifact, set()).add(own if module == "__name__" else module.strip('"'))
    return {name: tuple(sorted(found[name])) for name in sorted(found)}


def recorded() -> dict[str, Any]:
    """What stands in the file."""
    names: dict[str, Any] = {}
    exec(compile(TARGET.read_text(), str(TARGET), "exec"), names)
    return names


def without(names: dict[str, Any], later: set[str]) -> dict[str, Any]:
    """*names* as they were before those in *later* came."""
    return {
        table: {name: value for name, value in names[table].items() if name not in later}
        for table in ("COMPONENTS", "ARTIFACTS", "KEYWORDS")
    }


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def literal(value: Any) -> str:
    """*value* as source text; long descriptions in pieces that fit a line."""
    if isinstance(value, dict):
        return "{" + "".join(f"{literal(key)}: {literal(item)}," for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(literal, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, str) and len(value) > WIDTH:
        return "\n".join(repr(piece) for piece in textwrap.wrap(value, WIDTH, drop_whitespace=False))
    return repr(value)


def main() -> int:
    new, old = installed(), recorded()
    version = new["TORCH_VERSION"]
    if numbers(version) < numbers(old["TORCH_VERSION"]):
        later = {name for name, since in old["SINCE"].items() if numbers(since) > numbers(version)}
        same = without(old, later) == without(new, set())
        print(f"torch {version}: {'as recorded' if same else 'NOT as recorded'}, without {', '.join(sorted(later))}")
        return not same
    known = {*old["COMPONENTS"], *old["ARTIFACTS"], *old["KEYWORDS"]}
    since = {
        name: old.get("SINCE", {}).get(name, version)
        for name in sorted({*new["COMPONENTS"], *new["ARTIFACTS"]})
        if name in old.get("SINCE", {}) or name not in known
    }
    text = HEAD.format(
        version=version,
        first=FIRST_RECORDED,
        since=literal(since),
        components=literal(new["COMPONENTS"]),
        artifacts=literal(new["ARTIFACTS"]),
        modules=literal(new["ARTIFACT_MODULES"]),
        keywords=literal(new["KEYWORDS"]),
    )
    TARGET.write_text(text)
    print(f"torch {version}: {len(since)} names since {FIRST_RECORDED}: {', '.join(since)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
