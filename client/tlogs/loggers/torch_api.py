"""The functions of torch._logging that tlogs has too, spelled and called as torch spells and calls them.

They work without torch, and with torch loaded they act on torch's own registry and state.

Where tlogs differs from torch on purpose
-----------------------------------------
A set_logs() call that fails
    torch   keeps half of the call, or leaves logging dead (dynamo=10.0)
    tlogs   changes nothing

Settings change while another thread logs
    torch   resets all levels and handlers first: of 159,843 records logged
            meanwhile 16,782 came out
    tlogs   applies the difference; no record is lost that both the old and the
            new settings allow

TORCH_LOGS="" (set, but empty)
    torch   `import torch` fails with an AttributeError
    tlogs   no settings, but it still blocks set_logs(); if tlogs.init() comes
            first, `import torch` works too

A module named twice (modules={"torch.autograd": 10}, or pkg.sub and pkg)
    torch   writes each record twice
    tlogs   writes it once

An artifact that is off by default, below a component at DEBUG
    torch   builds and formats its records, then drops them
    tlogs   isEnabledFor() is false: they are not built

The same artifact, at WARNING and above
    torch   prints the bare message to stderr (logging.lastResort)
    tlogs   not shown; a handler of yours on that logger gets it as before

A package as a name (torch.distributed)
    torch   since 2.13 imports the package, walks it, and sets a level on every
            module in it (430 loggers, 5 s)
    tlogs   sets one logger, and the modules below inherit, as in torch 2.8;
            pkg.sub still imports pkg, as find_spec does

A package named after one of its modules (+pkg.sub,pkg)
    torch   2.13: pkg.sub is at INFO; 2.8: at DEBUG
    tlogs   DEBUG in either order: the more specific name wins

An unknown name, anywhere
    torch   lists every name
    tlogs   suggests the closest name, and lists all only without a close one;
            exceptions have torch's classes (ValueError, TypeError, ...)

TORCH_LOGS_OUT where torch is not loaded
    torch   opens the file once for each logger (33 times)
    tlogs   opens it once

Names below `torch.` where torch is not installed
    torch   -
    tlogs   accepted unchecked: nothing could check them

A name that only an installed, not yet imported torch can know
    torch   -
    tlogs   left to that torch: it is newer, or has plugged-in backends

What torch did before tlogs was initialised (`import torch` with TORCH_LOGS set)
is left as it is. A script's own call of torch._logging.set_logs() is torch's:
its reset loses records, and its double lines are double.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tlogs.levels.registry import Artifact
from tlogs.loggers.controller import LEVELS

__all__ = ["differences", "getArtifactLogger", "register_artifact", "register_log", "set_logs"]


def differences() -> str:
    """Where tlogs differs from torch, for people: the section of this module's docstring. Empty under `python -OO`."""
    _, _, section = (__doc__ or "").partition("-----\n")
    return section.strip()


def set_logs(
    *,
    all: int | None = None,
    dynamo: int | None = None,
    aot: int | None = None,
    autograd: int | None = None,
    dynamic: int | None = None,
    inductor: int | None = None,
    distributed: int | None = None,
    c10d: int | None = None,
    ddp: int | None = None,
    fsdp: int | None = None,
    dtensor: int | None = None,
    onnx: int | None = None,
    bytecode: bool = False,
    aot_graphs: bool = False,
    aot_joint_graph: bool = False,
    ddp_graphs: bool = False,
    graph: bool = False,
    graph_code: bool = False,
    graph_code_verbose: bool = False,
    graph_breaks: bool = False,
    side_effects: bool = False,
    graph_sizes: bool = False,
    guards: bool = False,
    recompiles: bool = False,
    recompiles_verbose: bool = False,
    trace_source: bool = False,
    trace_call: bool = False,
    trace_bytecode: bool = False,
    output_code: bool = False,
    kernel_code: bool = False,
    schedule: bool = False,
    perf_hints: bool = False,
    pre_grad_graphs: bool = False,
    post_grad_graphs: bool = False,
    ir_pre_fusion: bool = False,
    ir_post_fusion: bool = False,
    onnx_diagnostics: bool = False,
    fusion: bool = False,
    overlap: bool = False,
    export: int | None = None,
    modules: Mapping[str, int | bool] | None = None,
    cudagraphs: bool = False,
    sym_node: bool = False,
    compiled_autograd: bool = False,
    compiled_autograd_verbose: bool = False,
    cudagraph_static_inputs: bool = False,
    benchmarking: bool = False,
    autotuning: bool = False,
    autotuning_inputs: bool = False,
    incremental: bool = False,
    graph_region_expansion: bool = False,
    inductor_metrics: bool = False,
    hierarchical_compile: bool = False,
    compute_dependencies: bool = False,
    caching: bool = False,
    partitioned_scatter: bool = False,
) -> None:
    """Set the levels of components and turn artifacts on, in this process; this replaces all earlier settings.

    The signature, order and meaning are those of torch._logging.set_logs in 2.14, which has all that 2.8 and 2.13
    have: a component takes a level, an artifact True; *modules* takes any name, also of a module that nobody
    registered. What is not named returns to its default. If TORCH_LOGS is set, the call only logs torch's warning.

    Unlike torch's, a call that fails changes nothing, and no record is lost while the settings change.

    Raises:
        DirectiveError: an unknown name, an artifact that is not a bool, or a level that logging does not know.
        TypeError: an unknown keyword, or a level of a type that logging does not take.
        ImportError: a module whose parent cannot be imported.
        OSError: the file of TORCH_LOGS_OUT cannot be opened.
    """
    LEVELS.set_logs(**locals())


def getArtifactLogger(module_qname: str, artifact_name: str) -> logging.Logger:
    """The logger of an artifact's records in one module: `<module>.__<artifact>`.

    Raises:
        DirectiveError: *artifact_name* is not registered.
    """
    return LEVELS.artifact_logger(module_qname, artifact_name)


def register_log(setting_name: str, log_name: str | Sequence[str]) -> None:
    """Make *setting_name* a component: an alias in TORCH_LOGS and in set_logs(modules=...) for one or more loggers."""
    LEVELS.register_log(setting_name, (log_name,) if isinstance(log_name, str) else tuple(log_name))


def register_artifact(
    setting_name: str,
    description: str,
    visible: bool = False,
    off_by_default: bool = False,
    log_format: str | None = None,
) -> None:
    """Make *setting_name* an artifact; one that is *off_by_default* is shown only if it is named."""
    LEVELS.register_artifact(Artifact(setting_name, off_by_default, visible, log_format, description))
