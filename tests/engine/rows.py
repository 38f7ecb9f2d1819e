"""The rows of the contract: what each row tests, and what must hold in every version.

Each row is a part of one long play, and goes on where the row before it has ended.
"""

import base64
import json
import shutil
import time
from pathlib import Path
from queue import Empty

from client import stand_in
from model import TOWN
from play import LATE_SECS, picture, png

# How long an engine is left alone after its start, to see whether it contacts anybody.
IDLE_SECS = 20
# This many tokens are too many for the model, which has room for 262,144.
MANY_TOKENS = 250000
# This number finds a command that still runs when it should have ended.
LONG_SLEEP = "31.7301"
WEBP = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


def starting(play):
    play.begin_home()
    greeting = play.open()
    play.seen(greeting)
    can = greeting.get("result", {}).get("agentCapabilities", {})
    sessions = can.get("sessionCapabilities", {})
    play.must(greeting.get("result", {}).get("protocolVersion") == 1, "it speaks version 1 of ACP")
    play.must("list" in sessions and "resume" in sessions, "it can list and resume its sessions")
    play.must(can.get("promptCapabilities", {}).get("image"), "it takes pictures")
    listed = play.engine.ask("session/list", {"cwd": str(play.home.group)})
    play.must(listed.get("result", {}).get("sessions") == [], "a new home has no session")
    server = {"type": "http", "name": "mock", "url": f"{play.model.url}/mcp", "headers": []}
    play.seen(play.begin_session(server))
    play.must(play.session, "there is a session")


def idling(play):
    time.sleep(IDLE_SECS)
    turn = play.seen()
    play.must(not turn.asked and not turn.said, "an engine that is left alone asks and says nothing")


def answering(play):
    turn = play.done("Hello", "THINK I think\nSAY Hello back")
    play.must(turn.words == "Hello back", "the answer arrives, without the thoughts")
    play.must(not turn.permissions, "it has leave for everything")
    play.must(len(turn.requests) == 1, "a simple turn is one request")
    for asked in turn.asked:
        headers = {
            name: value
            for name, value in asked.headers.items()
            if name.startswith(("x-msh-", "authorization", "user-agent"))
        }
        play.note("with " + json.dumps(headers, sort_keys=True))
        play.must(
            headers.get("user-agent", "").startswith(f"kimi-code-cli/{play.version}"), "it says what it is"
        )
        play.must(headers.get("x-msh-device-id") == "0" * 32, "the device id is ours")
        play.must(headers.get("authorization") == "Bearer stand-in", "the key is the stand-in")
    offered = tools_of(turn.requests[0])
    play.must(
        "Bash" in offered and "WebSearch" in offered, "its tools are offered, and those of Kimi's services"
    )
    play.must(not set(offered) & set(play.home.runner.disabled), "no tool is offered that is switched off")
    turn = play.done("Long", "LONG 20000")
    play.must(len(turn.words) == 20000, "a long answer arrives whole")


def tools_of(request):
    return [tool["function"]["name"] for tool in request["tools"]]


def prompting(play):
    """What the model is told besides the messages: SYSTEM.md and AGENTS.md."""
    turn = play.done("Who are you?", "SAY Kai")
    system = turn.requests[0]["messages"][0]
    play.note("told " + json.dumps(system))
    play.must(
        system["role"] == "system" and system["content"].startswith("You are Kai."), "SYSTEM.md is the prompt"
    )
    play.must("Speak plainly." in system["content"], "AGENTS.md is in the prompt")
    play.must("How to count." in system["content"], "the skills are in the prompt")
    play.must(
        "How bread is baked here." in system["content"] and "elsewhere" not in system["content"],
        "the skills of further folders are in the prompt, the first of a name",
    )
    play.must("${" not in system["content"], "the names in SYSTEM.md are filled in")


def commands(play):
    turn = play.done(
        "Run it", 'SAY I run it.\nCALL Bash {"command":"echo one; echo two >&2; exit 3"}', "SAY done"
    )
    play.must(
        "one" in turn.last_result() and "3" in turn.last_result(), "the model hears what a command said"
    )
    # The text of each step is a piece of its own, and comes before the prompt is answered.
    play.must(turn.words == "I run it.done", "the words of both steps arrive")
    turn = play.done("Wait", 'CALL Bash {"command":"sleep 20","timeout":1}', "SAY done")
    play.must("imed out" in turn.last_result() or "imeout" in turn.last_result(), "a long command is ended")
    turn = play.done("Try", 'CALL Bash {"nothing":1}\nCALL Bash {broken', "CALL None {}", "SAY done")
    play.must(len(turn.results()) >= 3, "calls that make no sense are told to the model")


def files(play):
    play.done("Write", 'CALL Write {"path":"a.txt","content":"eins\\nzwei \\u00fc\\u4e2d\\n"}', "SAY done")
    play.done("Read", 'CALL Read {"path":"a.txt"}\nCALL Read {"path":"none.txt"}', "SAY done")
    play.done("Edit", 'CALL Edit {"path":"a.txt","old_string":"zwei","new_string":"drei"}', "SAY done")
    play.done(
        "Edit nothing", 'CALL Edit {"path":"a.txt","old_string":"none","new_string":"drei"}', "SAY done"
    )
    play.done("Find", 'CALL Glob {"pattern":"*.txt"}', 'CALL Grep {"pattern":"drei"}', "SAY done")
    path = play.home.group / "a.txt"
    written = path.read_text() if path.exists() else ""
    play.note(f"wrote {written!r}")
    play.must(written == "eins\ndrei ü中\n", "files are written and changed in the work folder")


def parallel(play):
    calls = "\n".join(f'CALL Bash {{"command":"echo number {n}"}}' for n in range(10))
    turn = play.done("Much", calls, "SAY done")
    play.must(
        [f"number {n}" in result for n, result in enumerate(turn.results()[-10:])] == [True] * 10,
        "ten calls at once have ten results in their order",
    )


def subagent(play):
    summary = "SAY " + "The other did it, and here is a summary that is long enough. " * 8
    turn = play.done(
        "Ask another",
        'CALL Agent {"prompt":"Do it","description":"do it"}',
        'CALL Bash {"command":"echo sub"}',
        summary,
        "SAY done",
    )
    play.must("a summary" in turn.last_result(), "the model hears what its subagent did")
    play.must("a summary" not in turn.words, "what a subagent says is no answer")


def skills(play):
    turn = play.done("Count", 'CALL Skill {"skill":"counting"}', 'CALL Skill {"skill":"none"}', "SAY done")
    play.must("Count slowly." in json.dumps(turn.requests[-1]["messages"]), "a skill is read")


def services(play):
    turn = play.done(
        "Look",
        'CALL WebSearch {"query":"weather"}',
        f'CALL FetchURL {{"url":"https://{TOWN}/page"}}',
        "SAY done",
    )
    kinds = [asked.kind for asked in turn.asked]
    play.must(kinds == ["model", "search", "model", "fetch", "model"], "Kimi searches and fetches for it")
    play.must("A page that Kimi has fetched" in turn.last_result(), "the model reads the page")
    keys = {asked.headers.get("authorization") for asked in turn.asked}
    play.must(keys == {"Bearer stand-in"}, "the services get the stand-in for a key")


def tool_server(play):
    turn = play.done(
        "Note", 'CALL mcp__mock__add_note {"text":"x","n":2}', 'CALL mcp__mock__add_note {"n":0}', "SAY done"
    )
    play.must("noted: " in "".join(turn.results()), "a tool of a server is called")


def pictures(play):
    turn = play.done("Look at this", "SAY a picture", more=[picture(png(40, 30))])
    last = json.dumps(turn.requests[-1]["messages"][-1])
    play.must("data:image/png;base64," in last, "the model sees the picture")
    play.must(last.index("Look at this") < last.index("data:image"), "the text comes before the pictures")
    play.done("A large one", "SAY a large picture", more=[picture(png(4200, 2400))])
    play.done("Others", "SAY two", more=[picture(WEBP, "image/webp"), picture(GIF, "image/gif")])
    play.done("None", "SAY none", more=[picture(b"not a picture")])
    (play.home.group / "p.png").write_bytes(png(3000, 2600))
    turn = play.done("A file", 'CALL ReadMediaFile {"path":"p.png"}', "SAY seen")
    play.must(
        "data:image/" in json.dumps(turn.requests[-1]["messages"][-1]), "it looks at a picture by itself"
    )


def statuses(play):
    for status in (400, 401, 402, 403, 404, 429, 500, 503):
        turn = play.turn("Fail", f"ERR {status}")
        play.must(len(turn.requests) == 1, f"a {status} is not asked again")
        play.must(turn.stop == "end_turn" or turn.error, f"a {status} ends the turn")
        play.must(turn.words == "", f"nothing is said after a {status}")
    play.done("Again", "SAY here")


def cut_stream(play):
    turn = play.turn("Break", "SAY partial \nCUT")
    play.must(len(turn.requests) == 1, "an answer that broke off is not asked for again")
    play.must(turn.words == "partial ", "what had been said stays the only words")
    # If a call came whole, it is made, although the answer never ended.
    play.turn("Break", 'CALL Bash {"command":"touch whole.txt"}\nCUT', "SAY done")
    play.note(f"made the whole call: {(play.home.group / 'whole.txt').exists()}")
    play.turn("Break", 'CALL Bash {"command":"touch half.txt\nCUT', "SAY done")
    play.must(not list(play.home.group.glob("half*")), "a call that broke off is not made")
    play.model.answers = []
    play.done("Again", "SAY here")


def cancel_words(play):
    play.model.answers = ["SLOW 20"]
    waiting = play.engine.begin_prompt(play.session, "Go on")
    wait_until(lambda: play.engine.said and play.model.asked)
    # The answer to a second prompt meanwhile belongs to another row.
    play.busy = play.engine.prompt(play.session, "More")
    play.engine.cancel(play.session)
    answer = answer_of(waiting)
    play.must(
        answer.get("result", {}).get("stopReason") == "cancelled", f"the turn is cancelled, not {answer}"
    )
    # Some words may arrive or not, so they are dropped.
    time.sleep(LATE_SECS)
    play.engine.said, play.engine.raw = [], []
    play.model.take()
    play.seen(answer)
    play.done("After it", "SAY here")


def cancel_command(play):
    play.model.answers = [f'CALL Bash {{"command":"sleep {LONG_SLEEP}"}}']
    waiting = play.engine.begin_prompt(play.session, "Sleep")
    play.must(wait_until(sleeps), "a command runs")
    play.engine.cancel(play.session)
    turn = play.seen(answer_of(waiting))
    play.must(turn.stop == "cancelled", f"the turn is cancelled, not {turn.answer}")
    play.must(wait_until(lambda: not sleeps()), "a cancelled command is ended")
    play.done("After it", "SAY here")


def wait_until(holds, limit_secs=15):
    deadline = time.monotonic() + limit_secs
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def sleeps():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{LONG_SLEEP}\0".encode():
                return True
        except OSError:
            pass
    return False


def answer_of(waiting, limit_secs=30):
    try:
        return waiting.get(timeout=limit_secs)
    except Empty:
        return {"error": {"message": f"no answer within {limit_secs} s"}}


def busy(play):
    play.seen(play.busy)
    play.must(play.busy.get("error"), "a second prompt meanwhile is refused")


def compaction(play):
    """A chat that has become too long: the next turn begins with a request for a summary."""
    play.done("Much", f"SAY a long way\nTOKENS {MANY_TOKENS}")
    turn = play.turn("And then?", "SAY all of it in short", "SAY went on")
    play.must(len(turn.requests) == 2, "a chat that is too long is put into short once")
    answer = "".join(text for text in turn.pieces if not text.startswith(tuple(play.home.runner.remarks)))
    play.must(
        answer == "went on", f"what it says of itself is known, and in pieces of its own: {turn.pieces}"
    )
    play.done("After it", "SAY here")


def slashes(play):
    turn = play.done("/compact", "SAY all of it in short")
    began, ended = "Context compaction started", "Compaction completed.\n"
    told = [piece.startswith(begins) for piece in turn.pieces for begins in (began, ended)]
    play.must(told == [True, False, False, True], f"it tells when a summary begins and ends: {turn.pieces}")
    play.done("/counting now", "SAY counted")
    turn = play.done("<context>\n/compact", "SAY only text")
    play.must(turn.words == "only text", "what does not begin with a slash is no command")


def unknown(play):
    group = str(play.home.group)
    for method, params in (
        ("session/nonsense", {}),
        ("session/prompt", {"prompt": 3}),
        ("session/new", {"cwd": 1, "mcpServers": "x"}),
        ("session/prompt", {"sessionId": "none", "prompt": []}),
        ("session/resume", {"sessionId": "none", "cwd": group, "mcpServers": []}),
    ):
        answer = play.engine.ask(method, params)
        play.seen(answer)
        play.must(answer.get("error", {}).get("code"), f"{method} with {params} is refused")
    play.seen(play.engine.ask("session/list", {"cwd": group}))


def ending(play):
    code, errors = play.close()
    play.note(f"ended with {code}")
    play.rows[play.row] += [f"stderr {line}" for line in errors]
    play.must(code == 0, "it ends by itself when its stdin is closed")


def loading(play):
    play.open()
    params = {"sessionId": play.session, "cwd": str(play.home.group), "mcpServers": []}
    answer = play.engine.ask("session/load", params)
    play.seen(answer)
    play.must("result" in answer, "a session can be loaded")
    play.done("Still there?", "SAY yes")


def resuming(play):
    """Starts as nanokimi does each time: the newest session of the list, a new prompt in its history."""
    play.close()
    ours = "You are Kai, and you speak Spanish now."
    today = play.home.system_prompt("You are Kai, and you speak Galician now.")
    play.home.write(play.home.data / "SYSTEM.md", today)
    play.home.write(play.home.group / "AGENTS.md", "Speak loudly.\n")
    for folder in play.home.skills:
        shutil.rmtree(folder)
    cake = "---\nname: \"cake\"\ndescription: \"How cake is baked.\"\n---\n\nMix it.\n"
    play.home.write(play.home.skills[0] / "cake/SKILL.md", cake)
    for path in play.home.histories():
        if path.parent.name == "main":
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(renewed(line, play.home, ours) for line in lines))
    play.open()
    listed = play.engine.ask("session/list", {"cwd": str(play.home.group)})
    play.seen(listed)
    found = listed.get("result", {}).get("sessions", [])
    newest = max(found, key=lambda session: session["updatedAt"], default={}).get("sessionId")
    play.must(newest == play.session, "the newest of the list is the session that we had")
    params = {"sessionId": newest, "cwd": str(play.home.group), "mcpServers": []}
    answer = play.engine.ask("session/resume", params)
    turn = play.seen(answer)
    play.must("result" in answer, "a session can be resumed")
    options = answer.get("result", {}).get("configOptions", [])
    model = next((option["currentValue"] for option in options if option["id"] == "model"), None)
    play.must(model == "kimi-for-coding", "a session whose profile was taken away has its model")
    params = {"sessionId": newest, "configId": "model", "value": model}
    play.must(
        "result" in play.engine.ask("session/set_config_option", params), "it may be told the model that it has"
    )
    play.must(
        not any(
            message["method"] == "session/update" and "message_chunk" in json.dumps(message)
            for message in turn.said
        ),
        "nothing of the past is said again",
    )
    turn = play.done("And now?", "SAY yes")
    told = json.dumps(turn.requests[0]["messages"])
    play.must("Still there?" in told, "it remembers")
    system = turn.requests[0]["messages"][0]["content"]
    play.must(system.startswith("You are Kai, and you speak Galician now."), "SYSTEM.md of today counts")
    play.must("Speak loudly." in system, "AGENTS.md of today counts")
    play.must("How cake is baked." in system and "bread" not in system, "the skills of today count")


def renewed(line, home, ours):
    """A line of a history without the profile's name and with our part of the prompt renewed.

    `kimi_code/history.rs` does the same.
    """
    if not line.startswith(home.runner.prompt_line):
        return line
    record = json.loads(line)
    _, mark, its_own = record["systemPrompt"].partition(home.runner.its_own_part)
    record["systemPrompt"] = f"{ours}\n\n{mark}{its_own}"
    record.pop("profileName", None)
    return json.dumps(record, separators=(",", ":")) + "\n"


def stored(play):
    play.close()
    runner = play.home.runner
    kept = sorted(
        path
        for path in play.home.root.rglob("*")
        if path.is_file()
        and path.name != "connections"
        and ".index-dirty" not in str(path)
        and "query-store" not in str(path)
    )
    play.rows[play.row] += [f"keeps {path}" for path in kept]
    history = ""
    for path in play.home.histories():
        text = path.read_text()
        play.rows[play.row] += [f"history {line}" for line in text.splitlines()]
        history += text if path.parent.name == "main" else ""
    lines = history.splitlines()
    for beginning in (runner.prompt_line, runner.message_line, runner.event_line):
        play.must(
            any(line.startswith(beginning) for line in lines), f"its history has lines with {beginning}"
        )
    play.must(
        any(line.startswith(runner.event_line) and runner.models_own in line for line in lines),
        f"what the model said has {runner.models_own}",
    )
    # `kimi_code/history.rs` reads these parts of a message that the host has told.
    told = [json.loads(line)["message"] for line in lines if line.startswith(runner.message_line)]
    play.must(
        any(
            message["role"] == "user" and message["content"][0].get("text") == "Still there?"
            for message in told
        ),
        "what the host told is a message of a user",
    )


def permissions(play):
    play.begin_home()
    play.open()
    play.begin_session()
    play.seen(play.engine.ask("session/set_mode", {"sessionId": play.session, "modeId": "default"}))
    give_leave = play.engine.decide
    turn = play.done("Given", 'CALL Bash {"command":"touch given.txt"}', "SAY done")
    play.must(turn.permissions, "it asks for leave in this mode")
    refusal = next(
        (
            option["optionId"]
            for message in turn.permissions
            for option in message["params"]["options"]
            if option["kind"].startswith("reject")
        ),
        "reject",
    )
    play.engine.decide = lambda *_: {"outcome": {"outcome": "selected", "optionId": refusal}}
    play.turn("Refused", 'CALL Bash {"command":"touch refused.txt"}', "SAY done")
    play.engine.decide = lambda *_: {"outcome": {"outcome": "cancelled"}}
    play.turn("Cancelled", 'CALL Bash {"command":"touch cancelled.txt"}', "SAY done")
    play.engine.decide = give_leave
    play.done("After it", "SAY here")
    there = sorted(path.name for path in play.home.group.glob("*.txt"))
    play.must(there == ["given.txt"], f"a command runs only with leave, not {there}")


def dead_server(play):
    dead = {"type": "http", "name": "dead", "url": "http://127.0.0.1:9/mcp", "headers": []}
    play.seen(play.begin_session(dead))
    turn = play.done("Hello", "SAY hello")
    play.must(turn.words == "hello", "a tool server that is not there does not end the turn")


def proxy(play):
    """Without Kimi's services the engine fetches pages by itself. Its commands always do."""
    play.begin_home(services=False)
    play.open()
    play.begin_session()
    for kind in ("http", "https"):
        turn = play.turn(f"Fetch {kind}", f'CALL FetchURL {{"url":"{kind}://{TOWN}/page"}}', "SAY done")
        reached(play, turn, f"its own fetch of {kind}")
    python = (
        "import urllib.request as u; print(u.urlopen('%s://" + TOWN + "/page', timeout=9).read().decode())"
    )
    node = (
        "fetch('%s://" + TOWN + "/page').then(a => a.text()).then(console.log, () => console.log('refused'))"
    )
    for kind in ("http", "https"):
        for name, command in (
            ("a program", f'python3 -c \\"{python % kind}\\" 2>&1 | tail -n 1'),
            ("Node", f'{play.node} -e \\"{node % kind}\\"'),
        ):
            turn = play.done(f"{name} {kind}", f'CALL Bash {{"command":"{command}"}}', "SAY done")
            reached(play, turn, f"{name} with {kind}")
    play.must("WebSearch" not in tools_of(play.before[-1]), "without a service there is no search")


def reached(play, turn, what):
    """Checks that a page is reached once and through the proxy: by a request to it, or by a tunnel."""
    page = f"http://{TOWN}/page"
    targets = [asked.target for asked in turn.asked if asked.kind == "proxied"]
    play.must(
        targets in ([page], [f"{TOWN}:80", page], [f"{TOWN}:443"]), f"{what} goes by the proxy, not {targets}"
    )
    read = "A page of the town." in turn.last_result()
    play.must(read == (page in targets), f"{what} is answered by the proxy, not {turn.last_result()[:300]}")


def tombstone(play):
    """With a revoked login, or with what is left of it, the engine renews nothing and writes nothing."""
    revoked, emptied = stand_in("stale", "revoked", 1.0), stand_in("", "", 0.0)
    for name, login in (("revoked", revoked), ("a tombstone", emptied)):
        play.begin_home(login=login)
        play.note(f"with a login that is {name}")
        play.open()
        play.begin_session()
        play.done("Hello", "SAY hello")
        play.turn("Refused", "ERR 401")
        play.done("Again", "SAY hello")
        play.close()
        logins = {path: login for path in play.home.logins}
        folders = [play.home.data / folder for folder in ("credentials", "oauth")]
        found = {path: path.read_text() for folder in folders for path in folder.rglob("*") if path.is_file()}
        play.must(found == logins, f"{name}: no login is written, not {sorted(found.items())}")
        renewals = [asked.target for asked in play.model.all_asked if "/oauth" in asked.target]
        play.must(not renewals, f"{name}: no login is renewed, not {renewals}")


def broken_settings(play):
    play.begin_home()
    (play.home.data / "config.toml").write_text("default_model = 3\n[providers]\nx = 1\n")
    play.seen(play.open())
    answer = play.begin_session()
    play.seen(answer)
    ending(play)


def no_other_call(play):
    play.end_home()
    play.rows[play.row] += sorted(set(play.strangers))
    play.must(
        not play.strangers,
        f"nobody is called but the model and those that it asks for, not " f"{sorted(set(play.strangers))}",
    )


ROWS = {
    "start": starting,
    "idle": idling,
    "answer": answering,
    "SYSTEM.md, AGENTS.md": prompting,
    "commands": commands,
    "files": files,
    "parallel tools": parallel,
    "subagent": subagent,
    "skills": skills,
    "web services": services,
    "MCP, live": tool_server,
    "pictures": pictures,
    "error statuses": statuses,
    "cut stream": cut_stream,
    "cancel while speaking": cancel_words,
    "busy (a second prompt)": busy,
    "cancel while a command runs": cancel_command,
    "compaction": compaction,
    "slash commands": slashes,
    "requests it refuses": unknown,
    "end": ending,
    "load": loading,
    "resume": resuming,
    "what it stores": stored,
    "permission given, refused, cancelled": permissions,
    "MCP, dead": dead_server,
    "proxy": proxy,
    "tombstone": tombstone,
    "broken settings": broken_settings,
    "no other call": no_other_call,
}
