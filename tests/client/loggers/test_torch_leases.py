"""Leases over what torch, or tlogs in its place, was asked for: they come, change and go, and the base stays."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlogs.levels.registry import recorded
from tlogs.levels.set_logs import in_call_order

pytestmark = pytest.mark.timeout(600)  # hundreds of forks; 180 s were not enough at a load of 18

GUARDS, BREAKS, BYTECODE = "torch._dynamo.guards.__guards", "torch._dynamo.exc.__graph_breaks", "torch._x.__bytecode"
C10D, DYNAMO = "torch.distributed.distributed_c10d", "torch._dynamo"
PROBE = sorted({*recorded().loggers(), "torch._dynamo.convert_frame", "homod", "mymod", GUARDS, BREAKS, BYTECODE})
MADE: list[list[Any]] = [
    ["artifact", "torch._dynamo.guards", "guards"],
    ["artifact", "torch._dynamo.exc", "graph_breaks"],
    ["artifact", "torch._x", "bytecode"],
]

Step = list[Any]


class Server(Protocol):
    """See conftest.py."""

    def ask(self, case: dict[str, Any]) -> list[dict[str, Any]]: ...


def run(server: Server, *steps: Step, env: str | None = None) -> list[dict[str, Any]]:
    """The answers to *steps*, after artifacts' loggers were made."""
    answers = server.ask({"env": env, "steps": [*MADE, *steps], "probe": PROBE})[len(MADE) + 1 :]
    assert [answer["error"] for answer in answers] == [[]] * len(steps)
    return answers


def lease(*, replace: bool = False, force: bool = False, **settings: int | bool) -> dict[str, Any]:
    return {"settings": settings, "replace": replace, "force": force}


def out(answer: dict[str, Any]) -> dict[str, Any]:
    """What comes out of each logger, at which levels."""
    return {name: (shown, taken) for name, (_, shown, taken) in answer["loggers"].items()}


@pytest.fixture(params=["absent", pytest.param("loaded", marks=pytest.mark.torch)])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


names = st.sampled_from([*recorded().components, "all", "homod", "guards", "graph_breaks", "bytecode"])


@st.composite
def leased(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, int | bool] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4)):
        is_artifact = name in recorded().artifacts
        found[name] = draw(st.booleans() if is_artifact else st.sampled_from([10, 20, 30, 40, 0]))
    return {"settings": found, "replace": draw(st.booleans()) and draw(st.booleans())}


keywords = st.dictionaries(
    st.sampled_from(["all", "dynamo", "c10d", "distributed", "export"]), st.sampled_from([10, 40])
)
calls = st.builds(
    lambda levels, artifacts: ["set_logs", {**levels, **artifacts}],
    keywords,
    st.dictionaries(st.sampled_from(["guards", "graph_breaks", "bytecode"]), st.just(True)),
)
lay = st.builds(lambda leases: ["overlay", *leases], st.lists(leased(), min_size=1, max_size=3))
some = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some
@given(first=calls, leases=st.lists(lay, min_size=1, max_size=3))
def test_when_all_leases_have_ended_everything_is_as_before(server: Server, first: Step, leases: list[Step]) -> None:
    before, *_, after = run(server, first, *leases, ["overlay"])
    assert after["loggers"] == before["loggers"]


@some
@given(first=calls, second=calls, leases=lay)
def test_set_logs_during_a_lease_changes_what_lies_under_it(
    server: Server, first: Step, second: Step, leases: Step
) -> None:
    *_, over, under = run(server, first, leases, second, ["overlay"])
    base, other, *_ = run(server, second, leases)
    assert over["loggers"] == other["loggers"]
    assert under["loggers"] == base["loggers"]


@pytest.mark.torch
@some
@given(first=calls, second=calls, leases=lay)
def test_a_script_that_calls_torchs_set_logs_during_a_lease_changes_what_lies_under_it(
    loaded: Server, first: Step, second: Step, leases: Step
) -> None:
    *_, over, under = run(loaded, first, leases, ["script_set_logs", second[1]], ["overlay"])
    base, other, *_ = run(loaded, second, leases)
    assert over["loggers"] == other["loggers"]
    assert under["loggers"] == base["loggers"]


@pytest.mark.torch
@some
@given(first=calls, wanted=calls)
def test_a_lease_that_replaces_is_torchs_set_logs(torch: Server, loaded: Server, first: Step, wanted: Step) -> None:
    theirs = run(torch, first, wanted)[-1]
    ours = run(loaded, first, ["overlay", {"settings": in_call_order(wanted[1]), "replace": True}])[-1]
    assert out(ours) == out(theirs)


@some
@given(leases=lay, later=lay)
def test_an_artifact_made_during_a_lease_is_as_one_made_before(server: Server, leases: Step, later: Step) -> None:
    for steps in ([leases], [leases, later], [later, leases, ["overlay"]]):
        before = run(server, *steps)[-1]
        case = {"env": None, "steps": [*steps, *MADE], "probe": PROBE}
        assert server.ask(case)[-1]["loggers"] == before["loggers"]


def test_a_lease_changes_only_what_it_names(server: Server) -> None:
    before, after = run(server, ["set_logs", {"dynamo": 10, "guards": True}], ["overlay", lease(c10d=10)])
    assert after["result"] == ["applied", ""]
    changed = [name for name in PROBE if before["loggers"][name] != after["loggers"][name]]
    assert changed == [C10D, "torch.distributed.rendezvous"]


def test_a_lease_turns_an_artifact_off_that_its_component_would_show(server: Server) -> None:
    before, after = run(server, ["set_logs", {"dynamo": 10}], ["overlay", lease(graph_breaks=False)])
    assert out(before)[BREAKS][1] == [1, 1, 1, 1]
    assert out(after)[BREAKS] == ([0, 0, 0, 0], [0, 0, 0, 0])


def test_torch_logs_has_precedence_over_a_lease_without_force(server: Server) -> None:
    before, after, forced = run(
        server,
        ["overlay"],
        ["overlay", lease(c10d=10)],
        ["overlay", lease(c10d=10, force=True)],
        env="+dynamo,guards",
    )
    assert after["result"] == ["ignored", "TORCH_LOGS=+dynamo,guards"]
    assert after["loggers"] == before["loggers"]
    assert forced["result"] == ["applied", ""]
    assert (forced["loggers"][C10D][0], forced["loggers"][DYNAMO][0]) == (10, 10)


def test_what_the_script_sets_by_hand_under_a_lease_is_there_when_it_ends(server: Server) -> None:
    *_, laid, ended = run(
        server, ["set_level", "mymod", 40], ["overlay", {"settings": {"mymod": 10, "c10d": 10}}], ["overlay"]
    )
    assert laid["loggers"]["mymod"][0] == 10
    assert ended["loggers"]["mymod"][0] == 40


def test_what_the_script_sets_by_hand_over_a_lease_stays_when_it_ends(server: Server) -> None:
    *_, ended = run(server, ["overlay", lease(c10d=10)], ["set_level", C10D, 40], ["overlay"])
    assert ended["loggers"][C10D][0] == 40


@pytest.mark.torch
def test_without_seams_the_next_heartbeat_lays_the_leases_again(loaded: Server) -> None:
    steps: list[Step] = [
        ["overlay", lease(c10d=10, bytecode=True)],
        ["break_seams"],
        ["script_set_logs", {"dynamo": 10, "c10d": 40}],
        ["check"],
        ["check"],
        ["report"],
        ["overlay"],
    ]
    _, _, reset, again, idle, report, ended = run(loaded, *steps)
    assert reset["loggers"][C10D][0] == 40
    assert again["result"] is True
    assert again["loggers"][C10D][0] == 10
    assert out(again)[BYTECODE][1] == [1, 1, 1, 1]
    assert idle["result"] is False
    assert report["result"]["seams"] == "polled"
    assert (ended["loggers"][C10D][0], ended["loggers"][DYNAMO][0]) == (40, 10)


@pytest.mark.torch
@pytest.mark.parametrize("env", [None, "+dynamo,bytecode,-c10d", "", "+homod,all"])
def test_torch_imported_later_leaves_everything_as_if_it_had_been_there(
    torch: Server, late: Server, env: str | None
) -> None:
    """Settings from before its import survive it, and each record stands on the standard error as often as before."""
    steps: list[Step] = [
        *MADE,
        ["set_logs", {"dynamo": 10, "guards": True, "modules": {"homod": 10}}],
        ["register_artifact", "fresh", True],
        ["import_torch"],
        ["artifact", "torch._inductor.x", "fresh"],
        ["set_logs", {"c10d": 10, "modules": {"fresh": True, "homod": 20}}],
    ]
    case = {"env": env, "steps": steps, "probe": [*PROBE, "torch._inductor.x.__fresh"]}
    for step, theirs, ours in zip([["start"], *steps], torch.ask(case), late.ask(case), strict=True):
        assert theirs["error"] == ours["error"] == [], step
        if step[0] == "import_torch" or step[0] == "set_logs":
            assert ours["loggers"] == theirs["loggers"], step


@pytest.mark.torch
def test_torch_imported_during_a_lease_comes_up_under_it(late: Server) -> None:
    steps: list[Step] = [
        ["overlay", lease(c10d=10, bytecode=True)],
        ["import_torch"],
        *MADE,
        ["script_set_logs", {"dynamo": 10}],
        ["overlay"],
    ]
    answers = late.ask({"env": None, "steps": steps, "probe": PROBE})
    during, ended = answers[-2], answers[-1]
    assert (during["loggers"][C10D][0], during["loggers"][DYNAMO][0]) == (10, 10)
    assert out(during)[BYTECODE][1] == [1, 1, 1, 1]
    assert (ended["loggers"][C10D][0], ended["loggers"][DYNAMO][0]) == (30, 10)
    assert out(ended)[BYTECODE][1] == [0, 0, 0, 0]


@pytest.mark.torch
def test_stop_leaves_torch_as_it_would_be_without_us(torch: Server, loaded: Server) -> None:
    ours = run(loaded, ["set_logs", {"dynamo": 10}], ["overlay", lease(c10d=10)], ["stop"])[-1]
    theirs = run(torch, ["set_logs", {"dynamo": 10}])[-1]
    assert {name: seen[:2] for name, seen in ours["loggers"].items()} == {
        name: seen[:2] for name, seen in theirs["loggers"].items()
    }
