"""Load a router while its nodes fail in many ways, and check its invariants.

Six simulated nodes fail at random or report absurd data, at most two at a time. Clients of all APIs
send requests and hang up; others hold uploads of 100 MB that hardly progress. The reader of the log
stalls for seconds, and the configuration changes continually. At the end no response may be wrong
or silently truncated, nothing may leak, and nearly every request that an endpoint could serve must
have been served.
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

from benchmarks.soak.fault_injection import FaultInjector
from benchmarks.soak.peers import IdleUploads, LogReader
from benchmarks.soak.requests import Outcome, Question, Reply, ask, questions
from benchmarks.soak.sampling import Sample, flat, sample

NODES = 6
RELOAD_SECONDS = 10.0
UPLOADS = 12
"""Idle uploads of 100 MB: together they announce more than
`server.request_limits.max_buffered_size`."""
SUCCESS_MIN = 0.999
_POLICIES = ("shortest-expected-delay", "loaded-first", "least-connections")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="run one minute instead of ten")
    parser.add_argument("--minutes", type=float, help="duration in minutes (default 10)")
    parser.add_argument("--clients", type=int, default=200, help="number of clients (default 200)")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of requests and faults (default 1)"
    )
    return parser.parse_args()


def configuration(urls: list[str], rng: random.Random | None = None) -> str:
    """Return the router's settings; `rng` varies some of them."""
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
    """One run: its clients, their expected responses and the outcomes."""

    def __init__(self, options: argparse.Namespace, base: str, nodes: list[str]) -> None:
        self._options = options
        self._base = base
        self._nodes = nodes
        self._rng = random.Random(options.seed)
        self._questions = questions(self._rng, 300)
        self._expected: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self.outcomes: Counter[Outcome] = Counter()
        self.reasons: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def learn(self, session: aiohttp.ClientSession) -> None:
        """Get the expected response to every question from the reference node."""
        for question in self._questions:
            direct = msgspec.structs.replace(
                question, path=question.path.removeprefix("/olla/ollama")
            )
            reply = await ask(session, self._nodes[-1], direct)
            assert reply.outcome is Outcome.RIGHT, reply
            self._expected[question.key] = reply.text

    async def client(self, number: int, session: aiohttp.ClientSession) -> None:
        """Send requests until the run ends."""
        rng = random.Random(self._options.seed * 10_000 + number)
        while not self._stopping.is_set():
            question = rng.choice(self._questions)
            leave_after = rng.randrange(1, 3000) if rng.random() < 0.05 else None
            reply = await ask(session, self._base, question, leave_after=leave_after)
            self._check(question, reply)
            await asyncio.sleep(rng.expovariate(1.0))

    def _check(self, question: Question, reply: Reply) -> None:
        outcome = reply.outcome
        if outcome is Outcome.RIGHT and reply.text != self._expected[question.key]:
            outcome = Outcome.WRONG
            reply.why = f"{reply.text[:80]!r} instead of {self._expected[question.key][:80]!r}"
        self.outcomes[outcome] += 1
        if outcome is Outcome.WRONG:
            self.wrong.append(f"{question.path} {reply.endpoint}: {reply.why}")
        if outcome is Outcome.UNAVAILABLE:
            self.reasons[reply.why[:150]] += 1

    async def reloads(self, file: Path, process: asyncio.subprocess.Process) -> None:
        """Change the settings every ten seconds; every fourth time the file is invalid."""
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
        """Stop sending requests."""
        self._stopping.set()


async def run(options: argparse.Namespace) -> int:
    """Run once; returns the exit status."""
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
            passed = await _load(soak, options, urls, base, file, router, seconds)
            print(f"        the log reader stalled {reader.stalls} times")
            passed &= await _stopped_cleanly(router, reader, log)
        finally:
            for process in (router, nodes):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    print("all checks passed" if passed else "SOME CHECKS FAILED")
    return 0 if passed else 1


async def _started(
    module: str, *arguments: str, out: int | None = None, **environ: str
) -> asyncio.subprocess.Process:
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("OLLA_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=subprocess.PIPE if out is None else out,
        env={**inherited, **environ},
        limit=1 << 20,
    )


async def _address(log: Path) -> str:
    """Wait until the router listens; returns its URL."""
    async with asyncio.timeout(20):
        while True:
            lines = log.read_text().splitlines() if log.exists() else []
            for line in lines:
                if '"listening"' in line:
                    return str(json.loads(line)["url"])
            await asyncio.sleep(0.05)


async def _load(
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
    faults = FaultInjector(urls[:-1], options.seed)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await soak.learn(session)
        first = await sample(session, base)
        start = time.monotonic()
        clients = [
            asyncio.create_task(soak.client(number, session)) for number in range(options.clients)
        ]
        uploads = IdleUploads(base, UPLOADS)
        others = [
            asyncio.create_task(faults.run(session)),
            asyncio.create_task(soak.reloads(file, router)),
            asyncio.create_task(uploads.run()),
        ]
        sizes: list[int] = []
        while (elapsed := time.monotonic() - start) < seconds:
            await asyncio.sleep(min(seconds / 30, 10.0))
            now = await sample(session, base)
            sizes.append(now.rss)
            print(
                f"{elapsed:5.0f} s: {sum(soak.outcomes.values())} responses,"
                f" {now.in_flight:.0f} in flight, {now.waiting:.0f} queued,"
                f" {now.rss / 1e6:.1f} MB, {now.tasks} tasks, {now.files} files",
                flush=True,
            )
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        soak.stop()
        await asyncio.gather(*clients)
    print(f"\n{UPLOADS} concurrent idle uploads, the router ended {uploads.ended}")
    return await _report(soak, faults, base, first, sizes)


async def _report(
    soak: Soak, faults: FaultInjector, base: str, first: Sample, sizes: list[int]
) -> bool:
    last = await _settled(base, first)
    outcomes = soak.outcomes
    served, unavailable = outcomes[Outcome.RIGHT], outcomes[Outcome.UNAVAILABLE]
    rate = served / max(1, served + unavailable)
    is_flat, growth = flat(sizes, 0.05)
    checks = {
        f"{outcomes[Outcome.WRONG]} wrong or silently truncated responses": not soak.wrong,
        f"{rate:.5%} of the requests served ({unavailable} failed)": rate >= SUCCESS_MIN,
        f"{last.in_flight:.0f} leases and {last.waiting:.0f} queued requests left": not (
            last.in_flight or last.waiting
        ),
        f"{last.connections:.0f} connections (1 is for this query)": last.connections <= 1,
        f"{last.tasks} tasks, {first.tasks} before": last.tasks <= first.tasks + 2,
        f"{last.files} files, {first.files} before": last.files <= first.files + 3,
        f"memory grew by {growth:.1%} from the middle third to the last": is_flat,
    }
    print("\nfaults:   " + ", ".join(f"{n} {name}" for name, n in faults.injected.most_common()))
    print("outcomes: " + ", ".join(f"{n} {each.value}" for each, n in outcomes.most_common()))
    for text, count in soak.reasons.most_common(8):
        print(f"  failed, {count}: {text}")
    for line in soak.wrong[:10]:
        print(f"  WRONG: {line}")
    for text, passed in checks.items():
        print(f"{'ok    ' if passed else 'FAILED'} {text}")
    return all(checks.values())


async def _settled(base: str, first: Sample) -> Sample:
    """Sample the process once connections, files and tasks are released, or after ten seconds."""
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            last = await sample(session, base)
            if last.connections <= 1 and last.files <= first.files and last.tasks <= first.tasks:
                break
            await asyncio.sleep(0.2)
        return last


async def _stopped_cleanly(
    router: asyncio.subprocess.Process, reader: LogReader, log: Path
) -> bool:
    """Stop the router; returns whether its exit status is 0 and it logged no error but invalid
    settings."""
    router.send_signal(signal.SIGTERM)
    reader.stop_stalling()
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
