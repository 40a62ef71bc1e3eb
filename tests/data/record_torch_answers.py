"""Ask torch again and write down its answers: `python tests/data/record_torch_answers.py`, with torch 2.13.0 installed.

The answers stand in `torch_answers.json` beside this file, for `tests/client/loggers/test_torch_agreement.py` where
there is no torch. An answer names only the loggers that differ from the step before, see `compact`.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

TEXTS = [
    None,
    "",
    *("dynamo", "+dynamo", "-dynamo", "all", "+all", "-all", "torch", "guards", "-guards", "+bytecode", "pp", "+cache"),
    *("+dynamo,-dynamo", "-dynamo,+dynamo", "+dynamic,-dynamo", "-dynamo,+dynamic", "+export,-dynamo"),
    *("-dynamo,+export", "+ddp,-distributed", "-distributed,+ddp", "+all,-dynamo", "-dynamo,+all"),
    *("-all,+distributed", "+distributed,-c10d", "+c10d", "-all,guards", "+all,recompiles", "dynamo,\n\t+aot"),
    *("+dynamo,graph_breaks,recompiles", "+homod", "hopkg", "+hopkg.alpha", "-homod,+dynamo", "+torch._dynamo"),
    *("torch.autograd", "json,+homod", "dynamo,dynamo", "+fsdp,dtensor,-pp", "fake_tensor,native_dsl,async_compile"),
    *(" ", ",", "dynamo,", ",dynamo", "dynamo,,aot", " dynamo", "dynamo ", "dynamo\n", "dynamo ,aot", "+ dynamo"),
    *("++dynamo", "+-dynamo", "dynamo+", "dyn+amo", "+", "-", "'dynamo'", '"dynamo"', "dynamo:aot", "dynamo=10"),
    *("a/b", "*", "torch.*", "~x", "1", "None", "class", "modules", "help", "+help", "-help", "help,dynamo"),
    *("динамо", "Dynamo", "ALL", "nope", "nope.sub", "homod.sub", "homod.", "hopkg..alpha", "hopkg.nope", ".homod"),
    *(".", "..", "hobroken.sub", "__main__", "+dynamo,nope"),
]
NO_MAPS: list[Any] = [None, [], 0, "", False, "x", [1], {"dynamo": None}, {"nope": None}]
LEVELS: list[Any] = [10, 20, 30, 40, 50, 0, True, False, 15, 5, -10, 60, "DEBUG", 10.5, 10.0, [10]]
SWITCHES: list[Any] = [True, False, None, 1, 0, "True", []]
CALLS: list[list[dict[str, Any]]] = [
    [{}],
    *([{"dynamo": level}] for level in LEVELS),
    *([{"all": level}] for level in (10, 50, 0, False, 15)),
    *([{"guards": value}] for value in SWITCHES),
    *([{"modules": value}] for value in NO_MAPS),
    *([{"modules": {name: 10}}] for name in ("all", "+dynamo", "dynamo,aot", " dynamo", "", "help", "torch", "pp")),
    *([{"modules": {name: 10}}] for name in ("homod", "hopkg", "hopkg.alpha", "torch.distributed", "torch.autograd")),
    *([{"modules": {name: 10}}] for name in ("nope", "nope.sub", "homod.sub", "hobroken.sub", ".homod", "c10d")),
    *([{"modules": {"homod": level}}] * 2 for level in (15, 7, "DEBUG", True, False, "bogus", 10.0)),
    [{"modules": {"guards": True, "bytecode": True, "pp": 10, "verbose_guards": True, "c10d": 10}}],
    [{"guards": True, "modules": {"guards": False}}],
    [{"export": 40, "dynamo": 10}, {"dynamo": 40, "export": 10}],
    [{"dynamic": 40, "dynamo": 10}],
    [{"ddp": 10, "distributed": 40}],
    [{"distributed": 10, "c10d": 40}],
    [{"dynamo": 50, "guards": True}],
    [{"dynamo": 10}, {"aot": 10}, {}],
    [{"c10d": 10}, {"c10d": 10}],
    [{"guards": True}, {"bytecode": True, "modules": {"nope": 10}}],
    [{"guards": True}, {"dynamo": 10.0}],
    [{"foo": 1}],
    [{"torch": 10}],
    [{"pp": 10}],
    [{"bytecode": True, "dynamo": 10}, {"bytecode": False, "dynamo": 10}],
    [{"modules": {"torch.distributed.distributed_c10d": 10}}, {"c10d": 20}],
    [{"modules": {"homod": 10}}, {"modules": {"homod": 20, "dynamo": 10}}, {}],
]
MADE: list[list[Any]] = [
    ["artifact", "torch._dynamo.guards", "guards"],
    ["artifact", "torch._dynamo.convert_frame", "bytecode"],
]
LATER: list[list[Any]] = [
    ["artifact", "torch._inductor.scheduler", "graph_breaks"],
    ["artifact", "mymod", "recompiles_verbose"],
]


def cases(probes: Any) -> list[dict[str, Any]]:
    """Every text, and every sequence of calls: artifacts' loggers before, others after."""
    found: list[dict[str, Any]] = [{"env": text, "steps": [*MADE, *LATER]} for text in TEXTS]
    for calls in CALLS:
        found.append({"env": None, "steps": [*MADE, *(["set_logs", call] for call in calls), *LATER]})
    found.append({"env": "+dynamo", "steps": [["set_logs", {"c10d": 10}], ["set_logs", {"foo": 1}]]})
    found.append({"env": "-all", "steps": [["set_logs", {"nope": 10}], ["set_logs", {"c10d": 10}]]})
    found.append({"env": "+dynamo", "steps": [["setenv", None], ["set_logs", {"c10d": 10}], *MADE]})
    found.append({"env": None, "steps": [["setenv", ""], ["set_logs", {"c10d": 10}], *MADE]})
    found.append({"env": "+homod", "steps": [["setenv", None], ["set_logs", {}]]})
    for off in (True, False):
        fresh: list[list[Any]] = [["register_artifact", "fresh", off], ["artifact", "torch._dynamo.guards", "fresh"]]
        found.append({"env": "+dynamo", "steps": fresh})
        found.append({"env": None, "steps": [*fresh, ["set_logs", {"modules": {"fresh": True, "mine": 10}}]]})
    mine: list[list[Any]] = [
        ["register_log", "mine", ["other.thing", "homod"]],
        ["set_logs", {"modules": {"mine": 10}}],
    ]
    found.append({"env": None, "steps": [*mine, ["set_logs", {}]]})
    return [{**case, "probe": probes(case["steps"])} for case in found]


def compact(answers: list[Any]) -> None:
    """Leave out of each answer what is as one step before, or for the first step as at the very first."""
    usual = answers[0][0]["loggers"]
    for answer in answers:
        before = usual
        for step in answer:
            now = step["loggers"]
            if now is not usual:
                step["loggers"] = {name: seen for name, seen in now.items() if before.get(name) != seen}
            before = now


def main() -> None:
    sys.path.insert(0, str(HERE.parents[1]))  # where `tests.limits` is found
    suite: dict[str, Any] = {}
    for name in ("test_torch_agreement", "conftest"):
        suite |= runpy.run_path(str(HERE.parent / "client" / "loggers" / f"{name}.py"))
    with tempfile.TemporaryDirectory() as root:
        server = suite["Server"]("torch", suite["make_packages"](Path(root)))
        asked = cases(suite["probes"])
        answers = [server.ask(case) for case in asked]
        compact(answers)
        server.close()
    for case in asked:
        del case["probe"]
    lines = [json.dumps([case, answer], separators=(",", ":")) for case, answer in zip(asked, answers, strict=True)]
    (HERE / "torch_answers.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
