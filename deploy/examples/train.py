"""A small but real training job: DistributedDataParallel over gloo on CPUs, synthetic data, about 20 seconds.

    tlogs-collector &
    TLOGS_COLLECTOR=127.0.0.1:5655 torchrun --nproc-per-node 4 deploy/examples/train.py

A steady training loop makes torch say nothing about its collectives at any level. So this one does what real jobs do
now and then: it makes a process group for evaluation every few seconds, and its batches change their shape, which
makes the compiled loss recompile. Turn on what torch says about either while it runs:

    tlogs set-logs c10d=DEBUG recompiles=on
"""

from __future__ import annotations

import argparse
import logging
import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import tlogs

log = logging.getLogger("train")

SHAPES = (32, 48, 24, 40, 56, 20, 28, 36, 44, 52)
"""Rows of a batch: another one every few steps, as the last batch of an epoch has."""


def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy with label smoothing, written out so that there is something to compile."""
    logged = logits.log_softmax(dim=-1)
    hit = logged.gather(1, target[:, None]).squeeze(1)
    return -(0.9 * hit + 0.1 * logged.mean(dim=1)).mean()


def evaluate(model: torch.nn.Module, rank: int) -> float:
    """Accuracy on fresh data over all ranks, in a process group of its own."""
    group = dist.new_group()
    data, target = batch(64, torch.Generator().manual_seed(10_000 + rank))
    with torch.no_grad():
        hits = (model(data).argmax(dim=1) == target).float().sum()
    dist.all_reduce(hits, group=group)
    dist.destroy_process_group(group)
    return float(hits) / (64 * dist.get_world_size())


def batch(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in sixteen dimensions, labelled by the largest of their first four."""
    data = torch.randn(rows, 16, generator=generator)
    return data, data[:, :4].argmax(dim=1)


def main() -> None:
    """Train for a while."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to train")
    seconds = parser.parse_args().seconds

    # A group's creation then ends with a barrier over the store, about which torch says something at DEBUG.
    os.environ["TORCH_DIST_INIT_BARRIER"] = "1"
    tlogs.init()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s: %(message)s")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    torch._dynamo.config.recompile_limit = 64
    model = DistributedDataParallel(
        torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    # The eager backend needs no C++ compiler; guards and recompilations are the same.
    compiled_loss = torch.compile(loss_of, backend="eager", dynamic=False)
    generator = torch.Generator().manual_seed(rank)
    log.info("rank %d of %d is ready", rank, dist.get_world_size())

    # All ranks must stop after the same step, so rank 0's clock decides.
    stop = torch.zeros(1)
    began = time.monotonic()
    step = 0
    while True:
        rows = SHAPES[step // 40 % len(SHAPES)]
        data, target = batch(rows, generator)
        loss = compiled_loss(model(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            log.info("step %d: loss %.4f with %d rows", step, loss.item(), rows)
        if step % 60 == 59:
            log.info("step %d: accuracy %.3f", step, evaluate(model, rank))
        if step % 10 == 0:
            stop.fill_(float(rank == 0 and time.monotonic() - began > seconds))
            dist.broadcast(stop, src=0)
            if stop.item():
                break
        step += 1
        time.sleep(0.05)
    log.info("rank %d has finished after %d steps", rank, step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
