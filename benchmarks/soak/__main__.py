"""Put a router under load while its nodes fail in every way there is, and see what holds.

Six simulated nodes fail at random or tell absurd things of themselves, two at a time at most;
clients of all APIs ask and leave, others hold uploads of 100 MB of which hardly a byte comes; the
reader of the log stalls for seconds; the configuration changes all the while. At the end no
answer may be wrong or silently cut, nothing may be left behind, and nearly every request that
somebody could serve must have been.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.soak.asking import Outcome, Question, Reply, ask, questions
from benchmarks.soak.breaking import Breaking
from benchmarks.soak.peers import IdleUploads, LogReader
from benchmarks.soak.watching import Sample, flat, sample

NODES = 6
RELOAD_SECONDS = 10.0
UPLOADS = 12
"""Idle uploads of 100 MB: more than fit into `server.request_limits.max_buffered_size`, were they
charged by what they announce."""
SUCCESS_MIN = 0.999
_POLICIES = ("shortest-expected-delay", "loaded-first", "least-connections")


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one minute in place of ten")
    parser.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--clients", type=int, default=200, help="how many clients (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="what breaks, and when (default 1)")
    return parser.parse_args()


def configuration(urls: list[str], rng: random.Random | None = None) -> str:
    """The router's settings: with `rng`, some of them are other ones."""
    chosen = list(range(len(urls)))
    policy, spillover = _POLICIES[0], "2s"
    if rng is not None:
        chosen = [each for each in chosen if each < 3 or rng.random() < 0.8]
        policy = rng.choice(_POLICIES)
        spillover = f"{rng.randrange(1, 5)}00ms"
    endpoints = "\n".join(
        f"      - {{name: node-{each + 1}, url: '{urls[each]}', type: ollama,"
        f" check_interval: 1s, check_timeout: 500ms,"
        f" priority: {100 if rng is None else rng.choice((90, 100))}}}"
        for each in chosen
    )
    return (
        "server: {host: 127.0.0.1, port: 0, shutdown_timeout: 5s}\n"
        f"proxy: {{load_balancer: {policy}, connection_timeout: 1s, connection_keep_alive: 2s,"
        " response_header_timeout: 3s, read_timeout: 2s}\n"
        f"routing: {{spillover: {spillover}}}\n"
        "logging: {level: warning}\n"
        f"discovery:\n  static:\n    endpoints:\n{endpoints}\n"
    )


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace, base: str, nodes: list[str]) -> None:
        self._options = options
        self._base = base
        self._nodes = nodes
        self._rng = random.Random(options.seed)
        self._questions = questions(self._rng, 300)
        self._right: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self.outcomes: Counter[Outcome] = Counter()
        self.reasons: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def learn(self, session: aiohttp.ClientSession) -> None:
        """Have the reference answer every question."""
        for question in self._questions:
            direct = msgspec.structs.replace(
                question, path=question.path.removeprefix("/olla/ollama")
            )
            answered = await ask(session, self._nodes[-1], direct)
            assert answered.outcome is Outcome.RIGHT, answered
            self._right[question.key] = answered.text

    async def client(self, number: int, session: aiohttp.ClientSession) -> None:
        """Ask until it is over."""
        rng = random.Random(self._options.seed * 10_000 + number)
        while not self._stopping.is_set():
            question = rng.choice(self._questions)
            leave_after = rng.randrange(1, 3000) if rng.random() < 0.05 else None
            asked = await ask(session, self._base, question, leave_after=leave_after)
            self._judge(question, asked)
            await asyncio.sleep(rng.expovariate(1.0))

    def _judge(self, question: Question, asked: Reply) -> None:
        outcome = asked.outcome
        if outcome is Outcome.RIGHT and asked.text != self._right[question.key]:
            outcome = Outcome.WRONG
            asked.why = f"{asked.text[:80]!r} in place of {self._right[question.key][:80]!r}"
        self.outcomes[outcome] += 1
        if outcome is Outcome.WRONG:
            self.wrong.append(f"{question.path} {asked.endpoint}: {asked.why}")
        if outcome is Outcome.UNAVAILABLE:
            self.reasons[asked.why[:150]] += 1

    async def reloads(self, file: Path, process: asyncio.subprocess.Process) -> None:
        """Other settings every ten seconds, now and then bad ones."""
        rng = random.Random(self._options.seed)
        number = 0
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            number += 1
            text = configuration(self._nodes[:-1], rng)
            file.write_text("proxy: [\n" if number % 4 == 0 else text)
            if number % 2:
                process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """No further requests."""
        self._stopping.set()


async def run(options: argparse.Namespace) -> int:
    """One run; returns the exit status."""
    seconds = 60.0 * (options.minutes or (1 if options.quick else 10))
    with tempfile.TemporaryDirectory() as folder:
        nodes = await _started("benchmarks.soak.nodes", str(NODES))
        assert nodes.stdout is not None
        urls = json.loads(await nodes.stdout.readline())
        file = Path(folder) / "olla.yaml"
        file.write_text(configuration(urls[:-1]))
        environ = {"OLLA_LOGGING_LEVEL": "info", "OLLA_HOME": folder}
        log = Path(folder) / "olla.log"
        reader = LogReader(log, options.seed)
        router = await _started(
            "olla", "serve", "--config", str(file), out=reader.write_end, **environ
        )
        reader.start()
        try:
            base = await _address(log)
            soak = Soak(options, base, urls)
            held = await _soaked(soak, options, urls, base, file, router, seconds)
            print(f"        the log's reader stalled {reader.stalls} times")
            held &= await _ended(router, reader, log)
        finally:
            for process in (router, nodes):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    print("everything held" if held else "SOMETHING DID NOT HOLD")
    return 0 if held else 1


async def _started(
    module: str, *arguments: str, out: int | None = None, **environ: str
) -> asyncio.subprocess.Process:
    kept = {name: each for name, each in os.environ.items() if not name.startswith("OLLA_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=subprocess.PIPE if out is None else out,
        env={**kept, **environ},
        limit=1 << 20,
    )


async def _address(log: Path) -> str:
    """Where the router listens, once it does."""
    async with asyncio.timeout(20):
        while True:
            lines = log.read_text().splitlines() if log.exists() else []
            for line in lines:
                if '"listening"' in line:
                    return str(json.loads(line)["url"])
            await asyncio.sleep(0.05)


async def _soaked(
    soak: Soak,
    options: argparse.Namespace,
    urls: list[str],
    base: str,
    file: Path,
    router: asyncio.subprocess.Process,
    seconds: float,
) -> bool:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    breaking = Breaking(urls[:-1], options.seed)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await soak.learn(session)
        first = await sample(session, base)
        begun = time.monotonic()
        clients = [
            asyncio.create_task(soak.client(number, session)) for number in range(options.clients)
        ]
        uploads = IdleUploads(base, UPLOADS)
        others = [
            asyncio.create_task(breaking.run(session)),
            asyncio.create_task(soak.reloads(file, router)),
            asyncio.create_task(uploads.run()),
        ]
        sizes: list[int] = []
        while (passed := time.monotonic() - begun) < seconds:
            await asyncio.sleep(min(seconds / 30, 10.0))
            now = await sample(session, base)
            sizes.append(now.rss)
            print(
                f"{passed:5.0f} s: {sum(soak.outcomes.values())} answers,"
                f" {now.in_flight:.0f} with nodes, {now.waiting:.0f} waiting,"
                f" {now.rss / 1e6:.1f} MB, {now.tasks} tasks, {now.files} files",
                flush=True,
            )
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        soak.stop()
        await asyncio.gather(*clients)
    print(f"\n{UPLOADS} uploads at a time stood idle, {uploads.ended} were ended by the router")
    return await _judged(soak, breaking, base, first, sizes)


async def _judged(
    soak: Soak, breaking: Breaking, base: str, first: Sample, sizes: list[int]
) -> bool:
    last = await _at_rest(base, first)
    outcomes = soak.outcomes
    served, unavailable = outcomes[Outcome.RIGHT], outcomes[Outcome.UNAVAILABLE]
    rate = served / max(1, served + unavailable)
    is_flat, growth = flat(sizes, 0.05)
    checks = {
        f"{outcomes[Outcome.WRONG]} wrong or silently cut": not soak.wrong,
        f"{rate:.5%} of what could be served was ({unavailable} not)": rate >= SUCCESS_MIN,
        f"{last.in_flight:.0f} leases and {last.waiting:.0f} places left": not (
            last.in_flight or last.waiting
        ),
        f"{last.connections:.0f} connections (1 is the one that asks)": last.connections <= 1,
        f"{last.tasks} tasks, {first.tasks} before": last.tasks <= first.tasks + 2,
        f"{last.files} files, {first.files} before": last.files <= first.files + 3,
        f"memory grew by {growth:.1%} from the middle third to the last": is_flat,
    }
    print("\ntroubles: " + ", ".join(f"{n} {name}" for name, n in breaking.happened.most_common()))
    print("answers:  " + ", ".join(f"{n} {each.value}" for each, n in outcomes.most_common()))
    for text, count in soak.reasons.most_common(8):
        print(f"  not served, {count}: {text}")
    for line in soak.wrong[:10]:
        print(f"  WRONG: {line}")
    for text, held in checks.items():
        print(f"{'ok    ' if held else 'FAILED'} {text}")
    return all(checks.values())


async def _at_rest(base: str, first: Sample) -> Sample:
    """The process once it has come to rest, or after ten seconds."""
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            last = await sample(session, base)
            if last.connections <= 1 and last.files <= first.files and last.tasks <= first.tasks:
                break
            await asyncio.sleep(0.2)
        return last


async def _ended(router: asyncio.subprocess.Process, reader: LogReader, log: Path) -> bool:
    """Ask the router to end; whether it did well, and has logged no error but bad settings."""
    router.send_signal(signal.SIGTERM)
    reader.calm_down()
    status = await router.wait()
    await asyncio.to_thread(reader.join)
    errors = [
        line
        for line in log.read_text().splitlines()
        if '"level": "error"' in line and "settings not loaded" not in line
    ]
    for line in errors[:5]:
        print(f"  logged: {line[:600]}")
    print(f"{'ok    ' if status == 0 and not errors else 'FAILED'} exit status {status},"
          f" {len(errors)} errors in the log")  # fmt: skip
    return status == 0 and not errors


if __name__ == "__main__":
    sys.exit(asyncio.run(run(arguments())))
