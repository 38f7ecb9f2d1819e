"""A play with one engine: what happens in it, and what is seen of it, row by row.

Only `must` judges here. `tidied` removes the things that differ from run to run, so that two plays can be
compared line by line.
"""

import base64
import hashlib
import json
import os
import re
import struct
import time
import zlib

from client import Engine, Home, version_of
from model import Model

# If the engine says something after the answer to a prompt, it comes within this time.
LATE_SECS = 0.4
# Updates that may come at any time: they are compared, but not their place among the others.
WITHOUT_PLACE = ("session_info_update", "available_commands_update", "config_option_update", "usage_update")


def png(width, height):
    rows = b"".join(b"\0" + bytes([y % 256, 90, 160]) * width for y in range(height))

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", header)
        + part(b"IDAT", zlib.compress(rows, 1))
        + part(b"IEND", b"")
    )


def picture(data, mime="image/png"):
    return {"type": "image", "mimeType": mime, "data": base64.b64encode(data).decode()}


class Turn:
    """The result of a prompt."""

    def __init__(self, answer, said, asked):
        self.answer, self.said, self.asked = answer, said, asked
        self.requests = [asked.body for asked in asked if asked.kind == "model"]
        self.stop = answer.get("result", {}).get("stopReason")
        self.error = answer.get("error", {}).get("code")
        updates = [
            message["params"].get("update", {}) for message in said if message["method"] == "session/update"
        ]
        self.pieces = [
            update["content"].get("text", "")
            for update in updates
            if update.get("sessionUpdate") == "agent_message_chunk"
        ]
        self.words = "".join(self.pieces)
        self.permissions = [message for message in said if message["method"] == "session/request_permission"]

    def results(self):
        """The results of its tools that the model was told, in the last request."""
        return [
            json.dumps(message["content"], ensure_ascii=False)
            for message in (self.requests or [{"messages": []}])[-1]["messages"]
            if message["role"] == "tool"
        ]

    def last_result(self):
        return (self.results() or [""])[-1]


class Play:
    """A play with one version: its rows in their order, each with the lines that were seen."""

    def __init__(self, node, package, place):
        self.node, self.package, self.place = node, os.path.realpath(package), place
        self.version = version_of(package)
        self.rows, self.findings = {}, []
        self.row, self.home, self.engine, self.session = "", None, None, None
        self.strangers = []

    # What happens.

    def begin_home(self, **how):
        """Makes a new home with a model of its own."""
        self.end_home()
        self.model = Model()
        self.home = Home(self.place, self.model, self.version, **how)
        self.before = []

    def end_home(self):
        if self.home is None:
            return
        self.close()
        self.strangers += [
            f"{asked.method} {asked.target}" for asked in self.model.all_asked if not asked.is_expected()
        ]
        allowed = (f"connect 127.0.0.1:{self.model.port}", "connect 127.0.0.1:9")
        self.strangers += [line for line in self.home.connections() if line not in allowed]
        self.model.close()
        self.home.remove()
        self.home = None

    def open(self):
        """Starts the engine in the home that exists. Returns its greeting."""
        self.close()
        self.engine = Engine(self.node, self.package, self.home)
        return self.engine.initialize()

    def begin_session(self, *servers):
        answer = self.engine.new(servers)
        self.session = answer.get("result", {}).get("sessionId")
        return answer

    def close(self):
        """Closes the engine. Returns its exit code and the lines that it wrote to stderr."""
        if self.engine is None:
            return None, []
        code = self.engine.close()
        self.engine = None
        errors = self.home.root / "stderr"
        lines = errors.read_text(errors="replace").splitlines()
        errors.unlink()
        return code, lines

    def turn(self, text, *scripts, more=()):
        """Sends one prompt, and the model answers with the scripts. Both go into the row."""
        self.model.answers = list(scripts)
        answer = self.engine.prompt(self.session, text, *more)
        turn = self.seen(answer)
        self.model.answers = []
        return turn

    def done(self, text, *scripts, more=()):
        """A turn that must end well."""
        turn = self.turn(text, *scripts, more=more)
        self.must(turn.stop == "end_turn", f"the turn {text!r} ends as it should, not with {turn.answer}")
        self.must(not self.model.answers, f"the turn {text!r} asks the model as often as it should")
        return turn

    # What is seen.

    def must(self, holds, sentence):
        if not holds:
            self.findings.append(f"{self.row}: it does not hold that {sentence}")

    def note(self, line):
        self.rows[self.row].append(line)

    def seen(self, answer=None):
        """Takes everything that was said and asked since the last call, and puts it into the row."""
        time.sleep(LATE_SECS)
        said, self.engine.said = self.engine.said, []
        raw, self.engine.raw = self.engine.raw, []
        beginning = self.home.runner.update_line
        for line in raw:
            is_update = json.loads(line).get("method") == "session/update" if line.startswith(b"{") else False
            self.must(line.startswith(beginning) or not is_update, "updates begin as nanokimi knows them")
        asked = self.model.take()
        for message in joined(said):
            self.note("said " + json.dumps(message, sort_keys=True))
        if answer is not None:
            kept = {name: answer[name] for name in ("result", "error") if name in answer}
            self.note("answered " + json.dumps(kept, sort_keys=True))
        for request in (request for request in asked if request.kind == "model"):
            self.note("asked the model " + json.dumps(self.news_in(request.body), sort_keys=True))
        others = [
            f"asked {request.method} {request.target} {json.dumps(request.body, sort_keys=True)}"
            for request in asked
            if request.kind != "model"
        ]
        self.rows[self.row] += sorted(others)
        return Turn(answer or {}, said, asked)

    def news_in(self, body):
        """The parts of a request that were not in an earlier request which began with the same messages."""

        def common(other):
            pairs = zip(other["messages"], body["messages"])
            same = 0
            for one, another in pairs:
                if one != another:
                    break
                same += 1
            return same

        nearest = max(self.before, key=common, default={"messages": []})
        same = common(nearest)
        news = {
            name: value for name, value in body.items() if name != "messages" and nearest.get(name) != value
        }
        news["gone"] = sorted(set(nearest) - set(body))
        whole = same == len(nearest["messages"])
        news["messages"] = ["as before" if whole else "as before, in part"] * bool(same) + body["messages"][
            same:
        ]
        self.before = [*self.before[-3:], body]
        return news


def joined(said):
    """The messages with the pieces of one text joined. Messages without a certain place are at the end."""
    merged = []
    for message in said:
        message = json.loads(json.dumps(message))
        message.pop("id", None)
        message.pop("jsonrpc", None)
        update = message["params"].get("update", {})
        before = merged[-1]["params"].get("update", {}) if merged else {}
        is_piece = update.get("sessionUpdate") in ("agent_message_chunk", "agent_thought_chunk")
        if is_piece and before.get("sessionUpdate") == update["sessionUpdate"]:
            before["content"]["text"] += update["content"]["text"]
        else:
            merged.append(message)
    kinds = [message["params"].get("update", {}).get("sessionUpdate") for message in merged]
    placed = [message for message, kind in zip(merged, kinds) if kind not in WITHOUT_PLACE]
    # If there are several of one kind, the last one counts.
    last = {kind: message for message, kind in zip(merged, kinds) if kind in WITHOUT_PLACE}
    return placed + [last[kind] for kind in sorted(last)]


def tidied(play, lines):
    """The lines of a row without the parts that differ from run to run."""
    names = {}

    def name(match):
        return names.setdefault(match[0], f"UUID{len(names)}")

    def data(match):
        return f"{match[1]}<{len(match[2])} characters, {hashlib.sha256(match[2].encode()).hexdigest()[:12]}>"

    port = str(play.model.port)
    tidy = []
    for line in lines:
        line = line.replace(play.place, "ROOT").replace(play.package, "PACKAGE").replace(play.node, "NODE")
        line = line.replace(f"127.0.0.1:{port}", "HOST").replace(f"127.0.0.1%3A{port}", "HOST")
        line = line.replace(play.version, "VERSION")
        line = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", name, line)
        line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", line)
        line = re.sub(r"\bkimi-code-env-[0-9a-f]{16}\b", "kimi-code-env-SLOT", line)
        line = re.sub(r"\b20\d\d-\d\d-\d\d\b", "DATE", line)
        line = re.sub(r"\b1[78]\d{11}\b", "MILLIS", line)
        line = re.sub(r"\b(msg|step|req|prompt)_[0-9A-Z]{26}\b", r"\1_ID", line)
        line = re.sub(r"\b(agent|task|bash)-[0-9a-z]{8}\b", r"\1-ID", line)
        line = re.sub(
            r'("(?:\w*(?:[Dd]uration|[Ll]atency|[Ee]lapsed|[Mm]s|[Tt]okensPerSecond|pid|mtime))":\s*)[\d.]+',
            r"\1N",
            line,
        )
        # How much room is left follows from the lengths of texts, which the other rows compare.
        line = re.sub(r'("(?:used|max_completion_tokens)": )\d+', r"\1N", line)
        # The same is true for the lines of a history.
        line = re.sub(r"\blines? \d+(?:\\u2013\d+)?", "lines N", line)
        line = re.sub(r"\bin \d+(\.\d+)?m?s\b|\b\d+(\.\d+)? ?(ms|seconds|s)\b", "SPAN", line)
        line = re.sub(r'("plan_mode\.enter".*?"id":)"[^"]*"', r'\1"NAME"', line)
        line = re.sub(r"\bwd_group_[0-9a-f]+|\bgroup[-_][0-9a-f]{6,}", "WORKDIR", line)
        line = re.sub(r"(data:[\w/+-]+;base64,|\"data\": \")([A-Za-z0-9+/=]{120,})", data, line)
        tidy.append(line)
    return tidy
