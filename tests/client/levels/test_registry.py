"""The names, and which of them a record belongs to."""

from __future__ import annotations

import pytest

from tlogs.levels.registry import Artifact, Registry, component_of, recorded
from tlogs.levels.torch_names import KEYWORDS


@pytest.mark.parametrize(
    ("logger", "component", "artifact"),
    [
        ("torch._dynamo", "dynamo", None),
        ("torch._dynamo.guards.__recompiles", "dynamo", "recompiles"),
        ("torch.fx.experimental.symbolic_shapes", "dynamic", None),
        ("torch.nn.parallel.distributed", "ddp", None),
        ("torch.distributed.distributed_c10d", "c10d", None),
        ("torch.distributed.run", "distributed", None),
        ("torch.utils.data", "torch", None),
        ("torch._dynamo.guards.__nothing", "dynamo", None),
        ("mymod.__guards", None, "guards"),
        ("torchvision", None, None),
        ("train", None, None),
        ("", None, None),
    ],
)
def test_a_record_belongs_to_the_nearest_and_most_specific_component(
    logger: str, component: str | None, artifact: str | None
) -> None:
    assert component_of(logger) == (component, artifact)


def test_the_recorded_registry_is_a_copy_each_time() -> None:
    recorded().components["mine"] = ("my.module",)
    assert "mine" not in recorded().components


def test_each_keyword_of_set_logs_is_a_component_or_an_artifact_as_it_says() -> None:
    registry = recorded()
    for name, is_artifact in KEYWORDS.items():
        assert (name in registry.artifacts) is is_artifact
        assert (registry.loggers_of(name) is not None) is not is_artifact


def test_names_of_ones_own_are_labelled_too() -> None:
    registry = Registry({"mine": ("my.module",)}, {"fresh": Artifact("fresh")})
    assert registry.label("my.module.part.__fresh") == ("mine", "fresh")


@pytest.mark.parametrize(("typed", "meant"), [("dinamo", "dynamo"), ("GUARDS", "guards"), ("c10", "c10d"), ("q", None)])
def test_a_slip_of_the_finger_finds_its_name(typed: str, meant: str | None) -> None:
    assert recorded().suggest(typed) == meant
