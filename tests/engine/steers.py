#!/usr/bin/env python3
"""Sends messages into turns of kimi-code at random moments, and counts what happens with them.

    steers.py --node NODE [--steers 2000] [--seed NUMBER] PACKAGE

PACKAGE is the folder of kimi-code as the image makes it. The turns have random shapes: words, thoughts,
tools, subagents, compactions, errors, cuts, cancels. Their messages ("steers") come before the first request,
while the model speaks, while tools run, around the last words, with a cancel, several at once, sometimes with
a picture. Each steer has an id of its own. The `judge` methods check what must hold; docs/engines.md says it
in words. The exit code is 1 if something does not hold. The seed repeats the shapes, not the milliseconds.
"""

import argparse
import json
import os
import queue
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter

from client import ANSWER_LIMIT_SECS, Engine, Home, version_of
from model import Model
from play import picture, png

# This many sessions are busy at once, each for this many turns. Then their histories are checked.
SESSIONS, TURNS = 6, 20
# One session in this many has compactions.
COMPACTS_EVERY = 3
# A steer may cross the turn's answer on its way, but not if it was read this long before the answer.
CROSSING_SECS = 0.03
# When a cancelled turn ends, one of its requests may still be on its way for this long.
HANGUP_SECS = 0.1
# How long the engine must ask nothing after all turns are over.
QUIET_SECS = 1.0
SHOWN = 10
MARK = re.compile(r'<message id="([^"]+)" turn="([^"]+)">')
COMPACTION = "You are about to run out of context"
SIGNS = ("agent_message_chunk", "agent_thought_chunk", "tool_call")


def marked(name, turn):
    return {"type": "text", "text": f'<message id="{name}" turn="{turn}">more</message>'}


def text_of(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Session:
    def __init__(self, engine, number):
        self.engine, self.number, self.has_compactions = engine, number, number % COMPACTS_EVERY == 0
        self.turns, self.requests, self.turn = [], [], None
        self.id = engine.new()["result"]["sessionId"]

    def prepare(self, method, *blocks):
        return self.engine.prepare(method, {"sessionId": self.id, "prompt": blocks})


class Turn:
    def __init__(self, session, name, seed):
        self.session, self.name, self.random = session, name, random.Random(f"{seed}/{name}")
        self.steers, self.sign, self.answer = [], None, None
        self.is_open, self.was_cancelled = True, False
        # Whether the turn only shows the history.
        self.is_plain = not name.startswith("turn")


class Steer:
    def __init__(self, name, waiting):
        self.name, self.waiting, self.sent, self.answer = name, waiting, time.monotonic(), None
        # The answer to a request that no engine knows, sent right after the steer. When this answer comes,
        # the steer was read.
        self.read = None

    @property
    def is_taken(self):
        return self.answer.get("result", {}).get("taken") is True


class Campaign:
    def __init__(self, asked, place):
        self.asked, self.left, self.number = asked, asked.steers, 0
        self.sessions, self.turns, self.lock = {}, {}, threading.Lock()
        self.found, self.count = [], Counter()
        self.pictures = [picture(png(30, 20)), picture(png(1600, 1500))]
        self.model = Model()
        self.model.choose, self.model.at_moment = self.choose, self.at_moment
        self.home = Home(f"{place}/home", self.model, version_of(asked.package))
        settings = self.home.data / "config.toml"
        limited = "[loop_control]\nmax_steps_per_turn = 9\n"
        settings.write_text(settings.read_text().replace("[loop_control]\n", limited))
        self.start()

    def start(self):
        self.engine = Engine(self.asked.node, self.asked.package, self.home, watched=False)
        self.engine.hear = self.hear
        if "result" not in self.engine.initialize():
            sys.exit("The engine did not start")

    def hear(self, message, _):
        """Notes when each turn gave its first sign."""
        session = self.sessions.get(message["params"].get("sessionId"))
        if session and session.turn and message["params"].get("update", {}).get("sessionUpdate") in SIGNS:
            session.turn.sign = session.turn.sign or time.monotonic()

    # What the model does.

    def choose(self, asked, number):
        """Notes the turn of a request and the messages in it. Returns what the model says."""
        texts = [text_of(message) for message in asked.body["messages"] if message["role"] == "user"]
        marks = MARK.findall("\n".join(texts))
        # Histories with pictures are large, and only the ids are needed from them.
        asked.body, asked.ids = None, Counter(name for name, _ in marks)
        is_compaction, is_subagent = texts[-1].startswith(COMPACTION), "subagent" in asked.ids
        asked.is_own, asked.is_subagent = not (is_compaction or is_subagent), is_subagent
        asked.turn = turn = self.turns.get(marks[-1][1]) if marks else None
        if not turn:
            self.must(False, f"request {number} is of a turn", "requests of nobody's turn")
            return "SAY yes"
        turn.session.requests.append(asked)
        self.count["compactions"] += is_compaction
        if is_compaction or is_subagent:
            return "WAIT 0.03\nSAY " + "All of it was done, and this is a summary that is long enough. " * 8
        return "SAY yes" if turn.is_plain else self.step(turn)

    def step(self, turn):
        """The script of a random step. The moments around the last words are the most important."""
        r, script = turn.random, []

        def maybe(chance):
            if r.random() < chance:
                script.append("MOMENT " + r.choices(["steer", "several", "with cancel"], [88, 6, 6])[0])

        time.sleep(r.random() ** 2 * 0.08)
        if r.random() < 0.08:
            self.steer(turn)
        if r.random() < 0.3:
            script += ["THINK hm ", f"WAIT {r.random() * 0.02}"]
        shape = r.random()
        if shape < 0.05:
            return f"ERR {r.choice([400, 429, 500, 503])}"
        if shape < 0.07:
            return "\n".join([*script, "SAY part ", "CUT"])
        if shape < 0.08:
            # An empty answer.
            maybe(0.5)
            return "\n".join([*script, "DONE"])
        script += ["SAY a word ", f"WAIT {r.random() * 0.06}"]
        maybe(0.15)
        script.append("SAY and more ")
        if shape < 0.12:
            script.append("FINISH " + r.choice(["content_filter", "length"]))
            maybe(0.5)
        elif shape < 0.58:
            script += ["TOKENS 250000"] * (turn.session.has_compactions and shape < 0.2)
            calls = {
                "Bash": {"command": f"sleep 0.{r.randrange(12):02d}; echo done"},
                "Read": {"path": "AGENTS.md"},
                "Nothing": {},
                "Agent": {"description": "do it", "prompt": marked("subagent", turn.name)["text"]},
            }
            for tool in r.choices(list(calls), [75, 10, 7, 8], k=r.choice([1, 1, 1, 2, 4])):
                script.append(f"CALL {tool} {json.dumps(calls[tool])}")
            script.append("DONE")
            maybe(0.1)
        elif r.random() < 0.45:
            pause = r.choice([0, 0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012])
            moment = ["MOMENT with cancel" if r.random() < 0.06 else "MOMENT steer"]
            script += r.choice([[*moment, "DONE"], ["DONE", f"WAIT {pause}", *moment]])
            script += ["MOMENT cancel"] * (r.random() < 0.15)
        return "\n".join(script)

    def at_moment(self, asked, name):
        steers = {"several": 4, "cancel": 0}.get(name, 1)
        self.steer(asked.turn, steers, has_cancel=name in ("cancel", "with cancel"))

    # What the person does.

    def prepare_steer(self, turn):
        self.number, self.left = self.number + 1, self.left - 1
        r = random.Random(f"{self.asked.seed}/{self.number}")
        shown = [r.choices(self.pictures, [3, 1])[0]] if r.random() < 0.08 else []
        self.count["pictures"] += len(shown)
        name = f"steer-{self.number}"
        waiting, message = turn.session.prepare("_session/steer", marked(name, turn.name), *shown)
        turn.steers.append(Steer(name, waiting))
        return message

    def steer(self, turn, steers=1, has_cancel=False):
        """Sends this many steers, and maybe a cancel, in one write."""
        # The lock keeps the steers in the order of `turn.steers`, and no steer comes after the next prompt.
        with self.lock:
            if turn.is_open and self.left >= steers:
                turn.was_cancelled = turn.was_cancelled or has_cancel
                cancel = {"method": "session/cancel", "params": {"sessionId": turn.session.id}}
                messages = [self.prepare_steer(turn) for _ in range(steers)]
                if steers and self.number % 2:
                    turn.steers[-1].read, unknown = turn.session.prepare("_session/unknown")
                    messages.append(unknown)
                self.engine.send(*messages, *[cancel] * has_cancel)

    def turn(self, session, name):
        turn = self.turns[name] = Turn(session, name, self.asked.seed)
        r, before, crossing = random.Random(f"{self.asked.seed}/{name}/person"), session.turn, []
        with self.lock:
            if before and not turn.is_plain and self.left > 0 and r.random() < 0.2:
                # A steer for the turn that is over, in one write with the next prompt. The next turn must not
                # take it.
                crossing.append(self.prepare_steer(before))
            session.turn = turn
            session.turns.append(turn)
            waiting, message = session.prepare("session/prompt", marked(name, name))
            self.engine.send(*crossing, message)
        timers = []
        if not turn.is_plain:
            if r.random() < 0.15:
                self.steer(turn)
            for _ in range(r.choice([0, 0, 1, 1, 2, 3])):
                how = (turn, 1, r.random() < 0.06)
                timers.append(threading.Timer(r.random() ** 1.5 * 0.6, self.steer, how))
            if r.random() < 0.1:
                timers.append(threading.Timer(r.random() * 0.4, self.steer, (turn, 0, True)))
        for timer in timers:
            timer.start()
        turn.answer = self.answer_of(waiting, name)
        # For a moment a steer may still come.
        time.sleep(r.choice([0, 0, 0.003, 0.01]))
        with self.lock:
            turn.is_open = False
        for timer in timers:
            timer.cancel()
        return turn

    def answer_of(self, waiting, name):
        try:
            answer = waiting.get(timeout=ANSWER_LIMIT_SECS)
        except queue.Empty:
            answer = {"error": {}, "at": time.monotonic()}
        self.must("result" in answer or "code" in answer["error"], f"{name} is answered", "unanswered")
        return answer

    # What happened with the steers.

    def round(self):
        """Runs some sessions at once. Then checks their histories, before and after a start of the engine."""
        sessions = [Session(self.engine, len(self.sessions) + n) for n in range(1, SESSIONS + 1)]
        self.sessions.update({session.id: session for session in sessions})

        def live(session):
            for n in range(TURNS):
                if self.left > 0:
                    self.turn(session, f"turn-{session.number}-{n}")

        threads = [threading.Thread(target=live, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(QUIET_SECS)
        for session in sessions:
            self.turn(session, f"before-{session.number}")
            for steer in (steer for turn in session.turns for steer in turn.steers):
                steer.answer = self.answer_of(steer.waiting, steer.name)
        self.must(self.engine.close() == 0, "the engine ends by itself, and well")
        self.must(not self.engine.unasked, f"each is answered once, not {self.engine.unasked[:2]}", "doubled")
        self.start()
        for session in sessions:
            session.engine = self.engine
            where = {"sessionId": session.id, "cwd": str(self.home.group), "mcpServers": []}
            self.must("result" in self.engine.ask("session/resume", where), f"{session.id} can be resumed")
            self.turn(session, f"after-{session.number}")
            self.engine.ask("session/close", {"sessionId": session.id})
            stored = self.stored(session)
            for turn in session.turns:
                self.judge_turn(turn)
                for steer in turn.steers:
                    self.judge_steer(turn, steer, stored[steer.name])

    def stored(self, session):
        """How often each message is in the history on the disk."""
        lines = []
        for path in self.home.data.glob(f"sessions/*/{session.id}/agents/main/wire.jsonl"):
            lines += path.read_text().splitlines()
        told = [line.replace('\\"', '"') for line in lines if line.startswith(self.home.runner.message_line)]
        return Counter(name for name, _ in MARK.findall("\n".join(told)))

    def must(self, holds, sentence, kind="other findings"):
        if not holds:
            self.count[kind] += 1
            self.found.append(sentence)

    def judge_turn(self, turn):
        over = turn.answer["at"]
        self.count["turns"] += not turn.is_plain
        self.count["cancelled"] += turn.was_cancelled
        last = over + HANGUP_SECS * turn.was_cancelled
        is_over = not any(asked.at > last for asked in turn.session.requests if asked.turn is turn)
        self.must(is_over, f"{turn.name} asks nothing after its answer", "requests of nobody's turn")
        # Of the steers that are sent after the turn's first sign, the first ones are taken, and answered in
        # their order.
        known = [steer for steer in turn.steers if turn.sign and turn.sign < steer.sent]
        for one, other in zip(known, known[1:]):
            in_order = not other.is_taken or one.is_taken and one.answer["at"] <= other.answer["at"]
            self.must(in_order, f"{one.name} is taken before {other.name}", "out of order")
        for steer in turn.steers:
            is_late = steer.answer["at"] > over
            read = steer.read.get(timeout=ANSWER_LIMIT_SECS)["at"] if steer.read else over
            was_read = steer in known and read < over - CROSSING_SECS
            self.count["not taken, told after their turn's answer"] += is_late
            in_order = not is_late or not steer.is_taken and not was_read
            self.must(in_order, f"{steer.name} is told before its turn's answer", "out of order")

    def judge_steer(self, turn, steer, stored):
        name, requests = steer.name, turn.session.requests
        holding = [asked for asked in requests if asked.ids[name]]
        if not steer.is_taken:
            self.count["not taken"] += 1
            is_nowhere = not holding and not stored
            return self.must(is_nowhere, f"{name}, not taken, is nowhere", "not taken, but there")
        self.count["taken"] += 1
        is_once = stored < 2 and all(asked.ids[name] < 2 and not asked.is_subagent for asked in holding)
        self.must(is_once, f"{name} is there once, and with the main agent only", "doubled")
        self.must(stored, f"{name}, taken, is in the stored history", "lost")
        # A compaction tells the history again. The request that is made while it runs may miss a steer.
        compacts = turn.session.has_compactions
        due = [asked for asked in requests if asked.is_own and asked.at > steer.answer["at"]]
        due = [asked for asked in due if not compacts or asked.turn is turn][compacts:]
        has_it = all(asked.ids[name] for asked in due)
        self.must(has_it, f"{name} is in each later request, also after a start", "lost")
        has_reached = any(asked.turn is turn for asked in holding)
        self.must(has_reached or turn.was_cancelled, f"{name} reaches the model in {turn.name}", "lost")
        self.count["taken, but cancelled before the request"] += not has_reached
        return None

    def report(self, seconds):
        requests = sum(len(session.requests) for session in self.sessions.values())
        turns = f"{self.count['turns']} turns of {len(self.sessions)} sessions"
        print(f"{self.number} steers in {turns}, {requests} requests, {seconds:.0f} s")
        for row in (
            ("taken", "not taken", "pictures", "cancelled", "compactions"),
            ("taken, but cancelled before the request", "not taken, told after their turn's answer"),
            ("lost", "doubled", "unanswered", "not taken, but there"),
            ("requests of nobody's turn", "out of order", "other findings"),
        ):
            print("    " + "; ".join(f"{name}: {self.count[name]}" for name in row))
        for sentence in self.found[:SHOWN]:
            print(f"  it does not hold that {sentence}")


def main():
    parser = argparse.ArgumentParser(description="Sends messages into turns of kimi-code at random moments.")
    parser.add_argument("--node", required=True, help="Node's program")
    parser.add_argument("--steers", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("package", metavar="PACKAGE", help="kimi-code's folder")
    asked = parser.parse_args()
    asked.package, begun = os.path.realpath(asked.package), time.monotonic()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="steers-") as place:
        campaign = Campaign(asked, place)
        while campaign.left > 0 and not campaign.count["unanswered"]:
            campaign.round()
        campaign.engine.close()
        campaign.must(campaign.count["taken"], "a steer is taken")
        campaign.report(time.monotonic() - begun)
    sys.exit(bool(campaign.found))


if __name__ == "__main__":
    main()
