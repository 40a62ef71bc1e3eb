"""Who speaks, as maps: what comes back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tlogs_shared.errors import ConfigError, MessageError
from tlogs_shared.origin import Origin, StreamInfo, find_key, find_origin

ORIGIN = Origin(host="n1", pid=7, boot_id="b", rank=3, world_size=8, helper="DataLoader1", key="job", outbox="/o")


def test_a_stream_comes_back_from_its_map() -> None:
    """What is stored of a stream is all that was known of it."""
    info = StreamInfo(ORIGIN, attempt=2, head=10, lost=1, dropped={10: 4}, end="bye", offset_ns=-5, bound_ns=3)
    assert StreamInfo.from_map(info.as_map()) == info


def test_keys_of_a_newer_version_are_passed_over_and_missing_ones_have_their_default() -> None:
    """Two versions that differ by a field can speak with each other."""
    assert Origin.from_map({"host": "n1", "pid": 7, "colour": "red"}) == Origin("n1", 7)


@pytest.mark.parametrize(
    "wrong",
    [{"host": 1}, {"pid": True}, {"pid": None}, {"rank": "3"}, {"provisional": 1}, {"helper": b"x"}, {"key": None}],
)
def test_a_field_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    """What a rank says of itself is checked field by field; a bool is no number."""
    with pytest.raises(MessageError, match="wrong type"):
        Origin.from_map({**ORIGIN.as_map(), **wrong})


@pytest.mark.parametrize("dropped", [None, [], {"10": 4}, {10: 4.0}, {10: None}])
def test_drops_that_are_no_counts_by_level_are_refused(dropped: object) -> None:
    """Arithmetic is done with them."""
    with pytest.raises(MessageError, match="wrong type"):
        StreamInfo.from_map({**StreamInfo(ORIGIN).as_map(), "dropped": dropped})


@pytest.mark.parametrize("values", [None, [], {}, {"host": "n1"}, {"pid": 7}])
def test_what_does_not_say_host_and_process_is_no_origin(values: object) -> None:
    """The least that a stream must say of itself."""
    with pytest.raises(MessageError):
        Origin.from_map(values)


@pytest.mark.parametrize("values", [None, [], {}, {"origin": None}])
def test_what_says_nothing_of_its_origin_describes_no_stream(values: object) -> None:
    with pytest.raises(MessageError):
        StreamInfo.from_map(values)


@pytest.mark.parametrize("rank", [-1, 1_000_001])
def test_a_rank_that_no_set_of_ranks_can_name_is_refused(rank: int) -> None:
    with pytest.raises(MessageError, match=f"rank {rank}"):
        Origin.from_map({**ORIGIN.as_map(), "rank": rank})


@pytest.mark.parametrize(
    ("origin", "label"),
    [({"rank": 3}, "rank3"), ({"rank": 0, "helper": "DataLoader1"}, "rank0/DataLoader1"), ({}, "n1:7")],
)
def test_a_stream_is_named_by_its_rank_or_else_by_its_process(origin: dict[str, Any], label: str) -> None:
    assert Origin("n1", 7, **origin).label == label


def test_times_are_corrected_only_where_an_offset_is_known() -> None:
    assert StreamInfo(ORIGIN).corrected(100) == 100
    assert StreamInfo(ORIGIN, offset_ns=-5).corrected(100) == 95


SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"}
OMPI = {"OMPI_COMM_WORLD_RANK": "6", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_SIZE": "8"}
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
ASSUMED = (0, 0, 1)

# A launcher's variables; rank, local rank and world size found.
LAUNCHERS = [
    ({}, ASSUMED),
    (TORCHRUN, (3, 1, 8)),
    ({"RANK": "3"}, (3, None, None)),
    ({"RANK": " 3 ", "LOCAL_RANK": ""}, (3, None, None)),
    ({"RANK": ""}, ASSUMED),
    ({"LOCAL_RANK": "2"}, ASSUMED),
    ({"LOCAL_RANK": "2", "NODE_RANK": "0", "WORLD_SIZE": "8"}, (2, 2, 8)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (6, 2, None)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1", "NPROC_PER_NODE": "3"}, (5, 2, None)),
    ({"LOCAL_RANK": "2", "NODE_RANK": "1"}, ASSUMED),  # how many there are on a node is a guess
    (SLURM, ASSUMED),  # inside an allocation, not started by srun
    ({**SLURM, "SLURM_STEP_ID": "0"}, (5, 1, 8)),
    ({**SLURM, **TORCHRUN, "SLURM_STEP_ID": "0"}, (3, 1, 8)),
    (OMPI, (6, 2, 8)),
    ({**OMPI, "PMI_RANK": "1"}, (6, 2, 8)),
    ({"PMI_RANK": "7", "PMI_SIZE": "8", "MPI_LOCALRANKID": "0", "PMI_LOCAL_RANK": "3"}, (7, 0, 8)),
    ({"PMI_RANK": "7", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "3"}, (7, 3, 8)),
]


@pytest.mark.parametrize(("environ", "found"), LAUNCHERS)
def test_the_rank_is_what_the_launcher_says(environ: dict[str, str], found: tuple[int, int, int]) -> None:
    origin = find_origin(environ, Origin("n1", 7))
    assert (origin.rank, origin.local_rank, origin.world_size) == found
    assert origin.provisional is (found == ASSUMED)


def test_torchruns_own_count_of_restarts_is_kept() -> None:
    assert find_origin({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}, Origin("n1", 7)).restart_count == 2


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"RANK": "x"}, "RANK='x': expected a number"),
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"RANK": "1.0"}, "RANK='1.0'"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "rank 8 in a world of 8: expected a rank from 0 to 7"),
        ({"RANK": "1000001"}, "rank 1000001"),
        ({"RANK": "0", "WORLD_SIZE": "many"}, "WORLD_SIZE='many'"),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "x"}, "SLURM_PROCID"),
    ],
)
def test_a_rank_that_cannot_be_is_named_at_set_up(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_origin(environ, Origin("n1", 7))


MASTER = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environ", "key"),
    [
        ({}, "parent:n1:12"),
        (MASTER, "master:n1:29500"),
        ({"MASTER_ADDR": "n1"}, "parent:n1:12"),
        ({**MASTER, "SLURM_JOB_ID": "77"}, "slurm:77"),
        ({**MASTER, "TORCHELASTIC_RUN_ID": "none"}, "master:n1:29500"),
        ({**MASTER, "TORCHELASTIC_RUN_ID": ""}, "master:n1:29500"),
        ({**MASTER, "SLURM_JOB_ID": "77", "TORCHELASTIC_RUN_ID": "abc"}, "torchelastic:abc"),
    ],
)
def test_processes_of_one_job_have_one_key(environ: dict[str, str], key: str) -> None:
    assert find_key(environ, "n1", 12) == key
