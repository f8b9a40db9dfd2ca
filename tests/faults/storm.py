"""A service under clients that is struck again and again: killed, or with calls that fail, at named points or any moment."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.processes import EXIT_CONFIG
from tests.faults.history import Client, Found, Items, check, clients
from tests.faults.plan import EVER, Action, Fault, Plan, library
from tests.running import RunningService, wait_for

Occasion = Literal["traffic", "restart", "stop"]
Whom = Literal["learner", "worker", "supervisor", "all", "stop"]

SEED = int(os.environ.get("FAULT_SEED", "11"))
"""Every choice of a run follows from it."""


@dataclass(frozen=True, slots=True)
class AtPoint:
    """A fault at a named call, at work, while the service starts again or while it stops."""

    fault: Fault
    occasion: Occasion

    def __str__(self) -> str:
        return f"{self.fault} in {self.occasion}"


@dataclass(frozen=True, slots=True)
class AtMoment:
    """A SIGKILL from outside, or a SIGTERM."""

    whom: Whom
    after: float

    def __str__(self) -> str:
        what = "SIGTERM" if self.whom == "stop" else f"SIGKILL of {self.whom}"
        return f"{what} after {self.after:.2f} s"


Strike = AtPoint | AtMoment


class Struck:
    """A service that follows a plan of faults; it counts what struck it."""

    def __init__(self, folder: Path, config: str, *flags: str) -> None:
        folder.mkdir(exist_ok=True)
        self.plan = Plan(folder, folder / "data")
        self.service = RunningService(folder, config, *flags, environment=self.plan.environment, preload=library())
        self.met: Counter[str] = Counter()

    def strike(self, strike: Strike) -> bool:
        """Let one strike happen and have the service serve again; return whether it was met."""
        print(f"strike: {strike}", flush=True)
        match strike:
            case AtMoment(whom, after):
                time.sleep(after)
                self._kill(whom)
                met = True
            case AtPoint(fault, occasion):
                met = getattr(self, f"_in_{occasion}")(fault)
        if met:
            self.met[strike.fault.point if isinstance(strike, AtPoint) else strike.whom] += 1
        else:
            print("  not met")
        return met

    def _kill(self, whom: Whom) -> None:
        service = self.service
        if whom in ("learner", "worker"):
            for pid in service.pids(whom)[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        if whom == "supervisor":
            assert service._process is not None
            os.kill(service._process.pid, signal.SIGKILL)
            service._process.wait(20)
        elif whom == "stop":
            assert service.stop() == 0, service.log()[-3000:]
        else:
            service.kill()
        service.start()  # where the supervisor alone was killed, its children may still be about

    def _in_traffic(self, fault: Fault) -> bool:
        met = self.plan.arm(fault).wait(1.5)
        if fault.action is Action.FAIL:
            time.sleep(0.2 if fault.times > 1 else 0.0)  # and then it has to go on by itself
        elif not met or fault.everyone:
            self.service.kill()
            self.plan.disarm()
            self.service.start()
        self.plan.disarm()
        return met

    def _in_restart(self, fault: Fault) -> bool:
        self.service.kill()
        self.plan.arm(fault)
        process = self.service.launch()
        patience = 1.5 if fault.action is Action.FAIL else 20.0
        with suppress(AssertionError):  # it tries again and again, as it should
            wait_for(lambda: process.poll() is not None or self.service.ready_url(), "an end or a start", patience)
        if fault.action is Action.FAIL:
            return self._go_on()
        return self._again()

    def _in_stop(self, fault: Fault) -> bool:
        process = self.service._process
        assert process is not None
        self.plan.arm(fault)
        process.terminate()
        process.wait(20)
        return self._again()

    def _go_on(self) -> bool:
        """Have the calls succeed again: a service that runs serves, one that ended has said why in one line."""
        met, process = bool(self.plan.fired()), self.service._process
        self.plan.disarm()
        assert process is not None
        ended = wait_for(lambda: process.poll() is not None or self.service.ready_url(), "an end or a start", 30) is True
        if ended:
            last = self.service.log().splitlines()[-1]
            print(f"  refused: {last}")
            assert process.poll() == EXIT_CONFIG, self.service.log()[-2000:]
            assert last.startswith("everlearn: "), self.service.log()[-2000:]
            self.service.kill()
            self.service.start()
        else:
            self.service.url = self.service.ready_url()
        return met

    def _again(self) -> bool:
        met = bool(self.plan.fired())
        self.service.kill()
        self.plan.disarm()
        self.service.start()
        return met


Survey = dict[Occasion, dict[str, int]]
"""How often a service passes each named point, by occasion."""


def survey(folder: Path, config: str, items: Items) -> Survey:
    """Count the named points that a service passes on each occasion."""
    struck = Struck(folder, config)
    passed: Survey = {}
    with struck.service as service:
        with clients(service, items):
            before = struck.plan.counts()
            time.sleep(1.5)
            passed["traffic"] = _since(before, struck.plan.counts())
        before = struck.plan.counts()
        service.kill()
        service.start()
        passed["restart"] = _since(before, struck.plan.counts())
        before = struck.plan.counts()
        assert service.stop() == 0
        passed["stop"] = _since(before, struck.plan.counts())
    return passed


def _since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    passed = {point: count - before.get(point, 0) for point, count in sorted(now.items())}
    return {point: count for point, count in passed.items() if count}


def kills(passed: Survey, times: int, choices: random.Random) -> list[Strike]:
    """Return kills at each point on each occasion, and as a quarter of all, at random moments; shuffled."""
    strikes: list[Strike] = []
    for occasion, points in passed.items():
        for point, count in points.items():
            for number in range(times):
                actions = [Action.KILL_BEFORE, Action.KILL_AFTER, *([Action.KILL_HALF] if point.startswith("write") else [])]
                everyone = occasion != "traffic" or choices.random() < 0.5
                action, first = actions[number % len(actions)], choices.randint(1, min(3, count))
                strikes.append(AtPoint(Fault(action=action, point=point, first=first, everyone=everyone), occasion))
    whom: tuple[Whom, ...] = ("learner", "worker", "supervisor", "all", "stop")
    strikes += [AtMoment(choices.choice(whom), choices.uniform(0, 0.5)) for _ in range(len(strikes) // 3)]
    choices.shuffle(strikes)
    return strikes


ERRORS = {
    "open": (errno.ENOSPC, errno.EIO, errno.EROFS),
    "write": (errno.ENOSPC, errno.EIO, errno.EROFS),
    "fsync": (errno.EIO, errno.ENOSPC),
    "truncate": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC, errno.EROFS),
    "unlink": (errno.EIO, errno.EROFS),
}
"""What the calls may say when a disk is full, fails, or was mounted anew for reading only."""


def failures(passed: Survey, choices: random.Random) -> list[Strike]:
    """Return failing calls at each point on each occasion, once or for a while; shuffled."""
    strikes: list[Strike] = [
        AtPoint(Fault(action=Action.FAIL, point=point, error=error, times=choices.choice([1, 3, EVER])), occasion)
        for occasion, points in passed.items()
        for point in points
        for error in ERRORS[point.split()[0]]
    ]
    choices.shuffle(strikes)
    return strikes


def storm(
    folder: Path, config: str, items: Items, strikes: Sequence[Strike], *, pause: float = 0.01
) -> tuple[Counter[str], Found]:
    """Strike a service under clients, and check in the end what they heard; return what struck it, and what was found."""
    struck = Struck(folder, config, "--workers", "2")
    with struck.service as service:
        with clients(service, items, pause=pause) as working:
            for strike in strikes:
                before = _acknowledged(working)
                struck.strike(strike)
                assert "Traceback" not in service.log(), f"{strike}: {service.log()[-3000:]}"
                wait_for(lambda before=before: _acknowledged(working) > before + 5, f"answers after {strike}")
        with service.client() as client:
            wait_for(lambda: client.get("/model").json()["lag"] == 0, "the learner to catch up")
        assert service.stop() == 0, service.log()[-3000:]
    # A client's events are in the order of its connections, which is all that the checker needs.
    found = check(service.data, [event for client in working for event in client.events])
    print(f"found: {found}")
    return struck.met, found


def _acknowledged(working: Sequence[Client]) -> int:
    return sum(client.acknowledged for client in working)


def rounds(strikes: Sequence[Strike], size: int) -> Iterator[Sequence[Strike]]:
    """Yield the strikes in parts: each part ends with a check, and a log that can be replayed in moments."""
    for start in range(0, len(strikes), size):
        yield strikes[start : start + size]
