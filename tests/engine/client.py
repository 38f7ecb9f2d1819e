"""The engine as nanokimi runs it: a home as the agent-runner makes it, and an ACP client.

Everything that depends on the engine's version is only in nanokimi's own source (`kimi_code/` of the
agent-runner, and `acp.rs`). It is read from there, so that the contract is tested with the same values that
the containers have.
"""

import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from model import API

CHECKOUT = Path(__file__).resolve().parents[2]
RUNNER = CHECKOUT / "container/agent-runner/src"
PRELOAD = Path(__file__).with_name("connections.cjs")

ANSWER_LIMIT_SECS = 120
CLOSE_LIMIT_SECS = 15
# 2100-01-01, as in nanokimi's stand-in.
NEVER = 4102444800.0


def stand_in(access="stand-in", refresh="", expires_at=NEVER):
    """A login file in the form that kimi-cli and kimi-code share."""
    return json.dumps(
        {
            "access_token": access,
            "refresh_token": refresh,
            "expires_at": expires_at,
            "scope": "kimi-code",
            "token_type": "Bearer",
            "expires_in": 0.0,
        }
    )


class Runner:
    """What nanokimi's source says about the engine."""

    def __init__(self):
        code, prompt, records = (
            (RUNNER / "kimi_code" / name).read_text() for name in ("mod.rs", "system_prompt.rs", "history.rs")
        )
        self.options = strings(constant(code, "OPTIONS"))
        self.disabled = strings(constant(code, "FOR_A_PERSON_THERE")) + strings(
            constant(code, "AFTER_THE_TURN")
        )
        self.attempts = int(constant(code, "ATTEMPTS"))
        self.its_own_part = strings(constant(prompt, "ITS_OWN_PART"))[0]
        self.variables = variables(code)
        acp = (CHECKOUT / "src/agent/acp.rs").read_text()
        # A line that is too long to be held is an update if it begins like this.
        self.update_line = constant(acp, "UPDATE_BEGINNING").removeprefix('br#"').removesuffix('"#').encode()
        # The beginnings of what the engine says about itself in the middle of an answer.
        self.remarks = [remark.replace("\\n", "\n") for remark in texts(acp, "REMARKS")]
        # The beginnings of history lines that are repaired at a start or searched, and a part of a line.
        beginnings = ("PROMPT_BEGINNING", "MESSAGE_BEGINNING", "EVENT_BEGINNING", "MODELS_OWN")
        self.prompt_line, self.message_line, self.event_line, self.models_own = (
            constant(records, name).removeprefix('br#"').removesuffix('"#') for name in beginnings
        )


def constant(code, name):
    found = re.search(rf"\bconst {name}: [^=]+ =\s*(.*?);\n", code, re.DOTALL)
    if not found:
        raise SystemExit(f"There is no constant {name} any more; see class Runner in client.py")
    return found[1]


def strings(code):
    return re.findall(r'"([^"]*)"', code)


def texts(code, name):
    """The strings of a list, of which some have names of their own."""
    listed = re.findall(r'"([^"]*)"|\b([A-Z][A-Z_]+)\b', constant(code, name))
    return [text or strings(constant(code, own_name))[0] for text, own_name in listed]


def variables(code):
    """The engine's environment, as the agent-runner's own test lists it."""
    listed = re.search(r'env\.join\("\\n"\),\s*"(.*?)"\s*\);', code, re.DOTALL)
    if not listed:
        raise SystemExit("The agent-runner's test of the engine's environment is gone")
    lines = (line.strip() for line in listed[1].split("\\n\\"))
    return dict(line.split("=", 1) for line in lines)


class Home:
    """A container's folders under `root`, as the agent-runner makes them for this version of kimi-code."""

    def __init__(self, root, model, version, *, services=True, login=None):
        self.root, self.model = Path(root), model
        self.runner = Runner()
        shutil.rmtree(self.root, ignore_errors=True)
        self.user = self.root / "home/node"
        self.data = self.user / ".kimi-code"
        self.group = self.root / "workspace/group"
        for folder in (self.data, self.group):
            folder.mkdir(parents=True)
        for path in self.logins:
            self.write(path, login or stand_in())
        self.write(self.data / "config.toml", self.configuration(version, services))
        self.write(self.data / "device_id", "0" * 32)
        self.write(self.data / "SYSTEM.md", self.system_prompt("You are Kai."))
        self.write(self.group / "AGENTS.md", "Speak plainly.\n")
        skill = "---\nname: counting\ndescription: How to count.\n---\n\nCount slowly.\n"
        self.write(self.group / ".agents/skills/counting/SKILL.md", skill)
        for folder, place in zip(self.skills, ("here", "elsewhere")):
            skill = f"---\nname: \"bread\"\ndescription: \"How bread is baked {place}.\"\n---\n\nKnead it.\n"
            self.write(folder / "bread/SKILL.md", skill)

    @property
    def skills(self):
        """The folders in which the agent-runner copies the group's skills, and those of all."""
        return [self.user / ".nanokimi/skills" / name for name in ("group", "global")]

    @property
    def logins(self):
        """The files where the engine looks for a login.

        One has the name that nanokimi writes, the other has kimi-code's own name for this API.
        """
        api = {"oauthHost": self.model.url, "baseUrl": self.model.url + API}
        slot = hashlib.sha256(json.dumps(api, separators=(",", ":")).encode()).hexdigest()[:16]
        return [self.data / f"credentials/{name}.json" for name in ("kimi-code", f"kimi-code-env-{slot}")]

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def system_prompt(self, ours):
        return f"{ours}\n\n{self.runner.its_own_part}\n\n${{agents_md}}${{skills_section}}\n"

    def configuration(self, version, services):
        """The owner's settings after the changes of `build_kimi_code_config` in `kimi_code/mod.rs`."""
        identity = "\n".join(
            (
                f'User-Agent = "kimi-code-cli/{version}"',
                'X-Msh-Platform = "kimi_code_cli"',
                f'X-Msh-Version = "{version}"',
                'X-Msh-Device-Name = "nanokimi"',
                f'X-Msh-Device-Id = "{"0" * 32}"',
            )
        )
        api = self.model.url + API
        text = f"""default_model = "kimi-for-coding"
default_permission_mode = "yolo"
extra_skill_dirs = {json.dumps([str(folder) for folder in self.skills])}
telemetry = false
[models."kimi-for-coding"]
provider = "managed:kimi-code"
model = "kimi-for-coding"
max_context_size = 262144
capabilities = ["thinking", "image_in"]
[providers."managed:kimi-code"]
type = "kimi"
base_url = "{api}"
api_key = "stand-in"
[providers."managed:kimi-code".custom_headers]
{identity}
[loop_control]
max_attempts_per_step = {self.runner.attempts}
[tools]
disabled = {json.dumps(self.runner.disabled)}
"""
        for name, path in (("moonshot_search", "search"), ("moonshot_fetch", "fetch")) if services else ():
            text += f'[services.{name}]\nbase_url = "{api}/{path}"\napi_key = "stand-in"\n'
            text += f"[services.{name}.custom_headers]\n{identity}\n"
        return text

    def environment(self):
        """The agent-runner's environment, with the paths and the port of this home."""
        places = {"http://127.0.0.1:8787": self.model.url, "/home/node": str(self.user)}
        env = {}
        for name, value in self.runner.variables.items():
            for place, ours in places.items():
                value = value.replace(place, ours)
            env[name] = value
        # Without ripgrep the engine would download it. The image has it.
        ripgrep = shutil.which("rg")
        if not ripgrep:
            raise SystemExit("ripgrep (rg) is missing")
        if os.path.dirname(ripgrep) not in env["PATH"].split(":"):
            env["PATH"] += ":" + os.path.dirname(ripgrep)
        return env

    def histories(self):
        return sorted(self.data.glob("sessions/*/*/agents/*/wire.jsonl"))

    def connections(self):
        """The addresses that the engine has connected to, and the names that it has looked up."""
        path = self.root / "connections"
        return path.read_text().splitlines() if path.exists() else []

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)


class Engine:
    """A running engine: `node OPTIONS main.mjs acp`. Each message to it or from it is one line."""

    def __init__(self, node, package, home, options=None, variables=None, watched=True):
        self.home = home
        # Notifications and requests of the engine, in their order. `raw` has each one as it came.
        self.said, self.raw = [], []
        self.waiting, self.count = {}, 0
        # Answers without an open request.
        self.unasked = []
        self.lock = threading.Lock()
        self.decide = give_leave
        self.errors = open(home.root / "stderr", "ab")
        watch = ["--require", str(PRELOAD)] if watched else []
        options = home.runner.options if options is None else options
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [node, *options, *watch, f"{package}/dist/main.mjs", "acp"],
            cwd=home.group,
            env={**home.environment(), "NODE_COMPILE_CACHE": f"{package}/compiled", **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                message = {"method": "no JSON", "params": {"line": line.decode(errors="replace")}}
            if "method" not in message:
                message["at"] = time.monotonic()
                waiting = self.waiting.pop(message.get("id"), None)
                if waiting:
                    waiting.put(message)
                else:
                    self.unasked.append(message)
                continue
            self.hear(message, line)
            if "id" in message:
                outcome = self.decide(message["method"], message["params"])
                unknown = {"error": {"code": -32601, "message": "Unknown request"}}
                self.send({"id": message["id"], **({"result": outcome} if outcome else unknown)})
        for waiting in list(self.waiting.values()):
            waiting.put({"error": {"message": "the engine is gone"}, "at": time.monotonic()})

    def hear(self, message, line):
        self.said.append(message)
        self.raw.append(line)

    def send(self, *messages):
        """Sends all messages in one write."""
        lines = b"".join(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages)
        try:
            with self.lock:
                self.process.stdin.write(lines)
                self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            # Each open request gets the answer that the engine is gone.
            pass

    def prepare(self, method, params):
        """Returns the queue for the answer, and the request, which is not sent yet."""
        with self.lock:
            self.count += 1
            number = f"{method}-{self.count}"
        self.waiting[number] = answer = queue.Queue()
        return answer, {"id": number, "method": method, "params": params}

    def begin(self, method, params):
        """Sends a request. Returns the queue for its answer."""
        answer, message = self.prepare(method, params)
        self.send(message)
        if self.process.poll() is not None:
            answer.put({"error": {"message": "the engine is gone"}, "at": time.monotonic()})
        return answer

    def ask(self, method, params, limit=ANSWER_LIMIT_SECS):
        try:
            return self.begin(method, params).get(timeout=limit)
        except queue.Empty:
            return {"error": {"message": f"no answer within {limit} s"}, "at": time.monotonic()}

    def initialize(self):
        who = {"name": "nanokimi", "version": "0.1.0"}
        nothing = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        return self.ask(
            "initialize", {"protocolVersion": 1, "clientCapabilities": nothing, "clientInfo": who}
        )

    def new(self, servers=()):
        return self.ask("session/new", {"cwd": str(self.home.group), "mcpServers": list(servers)})

    def begin_prompt(self, session, text, *more):
        blocks = [{"type": "text", "text": text}, *more]
        return self.begin("session/prompt", {"sessionId": session, "prompt": blocks})

    def prompt(self, session, text, *more, limit=ANSWER_LIMIT_SECS):
        try:
            return self.begin_prompt(session, text, *more).get(timeout=limit)
        except queue.Empty:
            return {"error": {"message": f"no answer within {limit} s"}, "at": time.monotonic()}

    def cancel(self, session):
        self.send({"method": "session/cancel", "params": {"sessionId": session}})

    def memory_mb(self):
        """Resident memory, private memory, and the peak of resident memory."""
        sizes = {}
        for name in ("smaps_rollup", "status"):
            for line in open(f"/proc/{self.process.pid}/{name}"):
                if found := re.match(r"(\w+):\s+(\d+) kB", line):
                    sizes[found[1]] = int(found[2]) / 1024
        return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["VmHWM"]

    def close(self):
        """Closes the engine's stdin. Returns its exit code, or None if it had to be killed."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            code = self.process.wait(CLOSE_LIMIT_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self.errors.close()
        return code


def give_leave(method, params):
    """Answers as nanokimi does: everything is allowed, and nothing else is offered."""
    if method != "session/request_permission":
        return None
    allowed = next(option for option in params["options"] if option["kind"].startswith("allow"))
    return {"outcome": {"outcome": "selected", "optionId": allowed["optionId"]}}


def version_of(package):
    return json.loads(Path(package, "package.json").read_text())["version"]
