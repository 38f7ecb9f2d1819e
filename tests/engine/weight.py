#!/usr/bin/env python3
"""Prints how heavy an installed kimi-code is: its start, its memory while idle, a long chat with pictures.

    weight.py --node NODE [--options "OPTIONS OF NODE"] [--set NAME=VALUE] [--runs 5] PACKAGE

Memory is in MB, resident and private, as medians of the runs. Time is in seconds: the median and the least.
Another engine idles beside the measured one, so that memory which engines share counts as shared: in real use
there is never only one engine. The first run fills Node's cache of compiled code and does not count. The exit
code is 1 if the long chat is more than the engine can hold.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

from client import Engine, Home, version_of
from model import Model
from play import picture, png

# Node returns memory only some time after the last use.
SETTLE_SECS = 1
PICTURE_BYTES = 1_000_000
MESSAGES, PICTURES = 100, 30
WITH_TOOLS = "first request, with a tool server"


class Scale:
    def __init__(self, asked, place):
        self.asked, self.place, self.number = asked, place, 0

    def start(self):
        """Starts an engine in a home of its own, and waits for its greeting."""
        self.number += 1
        home = Home(f"{self.place}/{self.number}", Model(), version_of(self.asked.package))
        return self.start_in(home)

    def start_in(self, home):
        options = self.asked.options.split() if self.asked.options is not None else None
        variables = dict(pair.split("=", 1) for pair in self.asked.set)
        engine = Engine(self.asked.node, self.asked.package, home, options, variables, watched=False)
        greeting = engine.initialize()
        if "result" not in greeting:
            sys.exit(f"The engine did not start: {greeting}")
        engine.greeted = greeting["at"] - engine.started
        return engine

    def end(self, engine):
        engine.close()
        engine.home.model.close()
        engine.home.remove()


def run(scale):
    """One run: the times of an engine that is asked right after its start, and the memory of an idle one."""
    row = {}
    for name in ("first request", WITH_TOOLS):
        engine = scale.start()
        server = {"type": "http", "name": "tools", "url": f"{engine.home.model.url}/mcp", "headers": []}
        session = engine.new([server] if name == WITH_TOOLS else [])["result"]["sessionId"]
        engine.prompt(session, "Hello")
        asked = next(asked for asked in engine.home.model.all_asked if asked.kind == "model")
        row[name] = asked.at - engine.started
        row["first answer"] = engine.greeted
        scale.end(engine)
    engine = scale.start()
    time.sleep(SETTLE_SECS)
    row["after its start"] = engine.memory_mb()
    session = engine.new()["result"]["sessionId"]
    engine.prompt(session, "Hello")
    time.sleep(SETTLE_SECS)
    row["after a turn"] = engine.memory_mb()
    scale.end(engine)
    return row


def long_chat(scale):
    """Prints each part of a long chat with the peak so far. Returns whether the engine has survived it."""
    engine = scale.start()
    home = engine.home
    session = engine.new()["result"]["sessionId"]

    def turn(title, *scripts, more=(), told=True):
        home.model.answers = list(scripts)
        begun = time.monotonic()
        answer = engine.prompt(session, f"{title} " + "and some words " * 30, *more)
        home.model.take()
        home.model.all_asked.clear()
        engine.said, engine.raw = [], []
        good = answer.get("result", {}).get("stopReason") == "end_turn" and engine.process.poll() is None
        if told or not good:
            peak = f"peak {engine.memory_mb()[2]:.0f} MB" if engine.process.poll() is None else "it has ended"
            print(
                f"    {title}: {'good' if good else answer}, {time.monotonic() - begun:.1f} s, {peak}",
                flush=True,
            )
        return good

    def all_of_it():
        for n in range(1, MESSAGES + 1):
            if not turn(f"message {n}", "SAY " + "an answer with some words " * 40, told=n == MESSAGES):
                return False
        command = 'CALL Bash {"command":"head -c 40000 /dev/zero | tr \\\\\\\\0 x"}'
        if not (
            turn("an answer of 200 KB", "LONG 200000")
            and turn("ten tools at once", "\n".join([command] * 10), "SAY done")
            and turn(
                "a file of 100 KB",
                'CALL Write {"path":"big.txt","content":"' + "words " * 17000 + '"}',
                "SAY done",
            )
        ):
            return False
        for n in range(1, PICTURES + 1):
            shown = picture(png(640, 560) + os.urandom(PICTURE_BYTES))
            if not turn(f"picture {n} of 1 MB", "SAY seen", more=[shown], told=n % 10 == 0):
                return False
        return turn("a picture of 12 megapixels", "SAY seen", more=[picture(png(4000, 3000))])

    good = all_of_it()
    if good:
        time.sleep(3 * SETTLE_SECS)
        print("    idle after it: {:.0f} resident, {:.0f} private, peak {:.0f}".format(*engine.memory_mb()))
        engine.close()
        engine = scale.start_in(home)
        params = {"sessionId": session, "cwd": str(home.group), "mcpServers": []}
        good = "result" in engine.ask("session/resume", params) and turn("resumed", "SAY yes")
    scale.end(engine)
    return good


def main():
    parser = argparse.ArgumentParser(description="Prints what an installed kimi-code weighs.")
    parser.add_argument("--node", required=True, help="Node's program")
    parser.add_argument("--options", help="options of Node in place of the agent-runner's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a further variable")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("package", metavar="PACKAGE", help="kimi-code's folder")
    asked = parser.parse_args()
    asked.package = os.path.realpath(asked.package)
    shutil.rmtree(f"{asked.package}/compiled", ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="weight-") as place:
        scale = Scale(asked, place)
        run(scale)
        beside = scale.start()
        rows = [run(scale) for _ in range(asked.runs)]
        scale.end(beside)
        print(f"kimi-code {version_of(asked.package)}, {asked.runs} runs")
        for name in ("first answer", "first request", WITH_TOOLS):
            times = [row[name] for row in rows]
            print(f"    {name}: {statistics.median(times):.2f} s, at least {min(times):.2f}")
        for name in ("after its start", "after a turn"):
            resident, private, _ = (statistics.median(values) for values in zip(*(row[name] for row in rows)))
            print(f"    {name}: {resident:.0f} MB resident, {private:.0f} private")
        print("  a long chat", flush=True)
        good = long_chat(scale)
    sys.exit(not good)


if __name__ == "__main__":
    main()
