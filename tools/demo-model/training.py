"""A training loop for two processes of one thread each, on the CPU, that can be stopped at any time and resumed.

Schedules count steps and data comes from (seed, process, step), so pauses and restarts change nothing. Two processes
beat two threads: these tensors are too small to be worth splitting, and a busy core then slows only its own share.
"""
import copy
import os
import random
import socket
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PROCESSES = 2


def orthogonalized(g, rounds=5):
    """The nearest semi-orthogonal matrices to a stack of them, roughly: Newton-Schulz as in Muon (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon:
    """Momentum orthogonalized, each process taking its share of the matrices; convolutions are out x (in * k * k)."""

    def __init__(self, parameters, lr, momentum=0.95, decay=0.01):
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.shapes = {}
        for p in parameters:
            self.shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
        self.velocity = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.shapes.items()}

    def step(self, scale, rank):
        if not self.shapes:
            return
        updates = {}
        for shape, ps in self.shapes.items():
            g = torch.stack([p.grad.reshape(shape) for p in ps])
            v = self.velocity[shape].mul_(self.momentum).add_(g, alpha=1 - self.momentum)
            mine = slice(rank, None, PROCESSES)
            update = torch.zeros_like(v)
            if len(ps) > rank:
                update[mine] = orthogonalized(g[mine].lerp(v[mine], self.momentum))
            updates[shape] = update
        flat = torch.cat([u.flatten() for u in updates.values()])
        dist.all_reduce(flat)
        at = 0
        for shape, ps in self.shapes.items():
            size = max(1, shape[0] / shape[1]) ** 0.5
            for p in ps:
                n = p.numel()
                p.data.mul_(1 - self.lr * scale * self.decay).add_(
                    flat[at : at + n].view_as(p), alpha=-self.lr * scale * size
                )
                at += n


class Job:
    """What is trained. `modules`: all that is saved; `loss(step, progress, rng, rank)`: a scalar and figures to log."""

    name, steps, seed = "job", 1000, 0
    muon_lr, adam_lr, text_lr, batch = 0.02, 3e-3, 1e-3, 8
    warmup, flat = 50, 0.5
    average = 0.998

    def goal(self, step):
        """The step at which the learning rate, falling as it does at `step`, would be gone."""
        return self.steps

    def report(self, averaged):
        return ""


def schedule(step, job):
    if step < job.warmup:
        return (step + 1) / job.warmup
    left = (1 - step / job.goal(step)) / (1 - job.flat)
    return max(0.01, min(1.0, left))


def worker(rank, make, state, port, arguments):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    job = make(state, **arguments)
    model = job.model
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    trained = [p for _, p in parameters]
    text = {name for name, _ in parameters if name.startswith("texts.") or name.startswith("heads.")}
    ends = {name for name, p in parameters if "conv_in." in name or "conv_out." in name}
    matrices = [p for name, p in parameters if p.ndim > 1 and name not in text | ends]
    muon = Muon(matrices, job.muon_lr)
    adam = torch.optim.AdamW(
        [
            dict(params=[p for name, p in parameters if name in text], lr=job.text_lr, base=job.text_lr),
            dict(params=[p for name, p in parameters if (p.ndim < 2 or name in ends) and name not in text], lr=job.adam_lr, base=job.adam_lr),
        ],
        betas=(0.9, 0.98), weight_decay=1e-4, fused=True,
    )
    averaged = copy.deepcopy(model).requires_grad_(False)
    averages = [p for p, q in zip(averaged.parameters(), model.parameters()) if q.requires_grad]
    step, active, path = 0, 0.0, f"{state}/{job.name}.pt"
    if os.path.exists(path):
        saved = torch.load(path, weights_only=False)
        model.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
        adam.load_state_dict(saved["adam"])
        muon.velocity = saved["velocity"]
        step, active = saved["step"], saved["active"]
    log = open(f"{state}/{job.name}.log", "a", buffering=1) if rank == 0 else None

    def note(text):
        if log:
            print(text, file=log)
            print(text, flush=True)

    def save():
        if rank == 0:
            what = dict(model=model.state_dict(), averaged=averaged.state_dict(), adam=adam.state_dict(),
                        velocity=muon.velocity, step=step, active=active)
            torch.save(what, path + ".new")
            os.replace(path + ".new", path)

    note(f"{job.name}: from step {step} to {job.steps}, {sum(p.numel() for p in trained)} weights")
    sums, count, saved_at, noted_at = {}, 0, active, active
    parent = os.getppid()
    while step < job.steps and os.getppid() == parent:
        began = time.monotonic()
        scale = schedule(step, job)
        rng = random.Random(f"{job.seed} {rank} {step}")
        torch.manual_seed(rng.randrange(2**40))
        loss, figures = job.loss(step, step / job.goal(step), rng, rank)
        for p in trained:
            p.grad = None
        loss.backward()
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in trained])
        dist.all_reduce(flat)
        flat /= PROCESSES
        norm = flat.norm()
        if torch.isfinite(norm):
            flat *= min(1.0, job.clip / (norm.item() + 1e-9))
            at = 0
            for p in trained:
                p.grad = flat[at : at + p.numel()].view_as(p)
                at += p.numel()
            for group in adam.param_groups:
                group["lr"] = group["base"] * scale
            adam.step()
            muon.step(scale, rank)
        step += 1
        keep = min(job.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [p.data for p in trained], 1 - keep)
        for name, value in dict(figures, norm=norm.item()).items():
            sums.setdefault(name, []).append(value)
        count += 1
        # A stopped process has not been at work: its pause is not counted.
        active += min(time.monotonic() - began, 10.0)
        if step % 100 == 0 or step in (10, 30):
            means = " ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in sorted(sums.items()))
            note(f"{job.name} {step} {active:.0f}s {(active - noted_at) / count:.3f}s/step lr {scale:.3f} {means}")
            sums, count, noted_at = {}, 0, active
        if rank == 0 and (active - saved_at > 30 or step == job.steps):
            save()
            saved_at = active
        if step % job.report_every == 0 or step == job.steps:
            if rank == 0:
                note(f"{job.name} {step} {job.report(averaged)}")
            dist.barrier()
    dist.destroy_process_group()


def run(make, state, **arguments):
    os.makedirs(state, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(make, state, port, arguments), nprocs=PROCESSES)
