"""Everything that an engine connects to, on one port: a model, Kimi's services, a tool server and a proxy.

The play puts the model's answers into `answers`: one script for each request, with one verb on each line:

    SAY text         a piece of the answer
    THINK text       a piece of a thought
    LONG bytes       an answer of this many bytes, in many pieces
    CALL tool json   a tool call
    TOKENS number    the model says that this many tokens were used
    SLOW seconds     a first word, then silence
    CUT              the connection breaks here
    ERR status       an error instead of a stream (alone in its script)
    WAIT seconds     silence
    FINISH reason    the answer ends for this reason
    DONE             the answer ends here; later verbs run after its last byte
    MOMENT name      `at_moment` is called with this name

Every request is kept, so that the play can see it. No server here ever connects to the network.
"""

import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

API = "/coding/v1"
# The only host that the play asks for through the proxy.
TOWN = "town.example"
# The play expects requests to these paths of the API. The first one is the model's.
EXPECTED = {
    f"{API}/chat/completions": "model",
    f"{API}/search": "search",
    f"{API}/fetch": "fetch",
    "/mcp": "mcp",
}
PIECE_BYTES = 40
USAGE = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cached_tokens": 500}
CREATED = 1767225600


@dataclass
class Asked:
    """A request of the engine or of one of its commands."""

    kind: str
    method: str
    target: str
    body: object = None
    headers: dict = field(default_factory=dict)
    at: float = 0.0
    # Whether the model has answered it to the end.
    is_done: bool = False

    def is_expected(self):
        """False for a request that the play has not caused."""
        if self.kind == "proxied":
            return self.target.removeprefix("http://").split("/")[0].split(":")[0] == TOWN
        return self.kind != "other"


def kind_of(method, target):
    if method == "CONNECT" or "://" in target:
        return "proxied"
    return EXPECTED.get(target.split("?")[0], "other")


class Model:
    """The server. Every request is answered in a thread of its own."""

    def __init__(self):
        self.answers = []
        # The script of a request if `answers` is empty.
        self.otherwise = "SAY yes"
        self.asked, self.all_asked = [], []
        self.at_first_request = lambda: None
        # If set, this replaces `answers`: it gives the script of a request, and may take its time.
        self.choose = None
        self.at_moment = lambda asked, name: None
        self.lock = threading.Lock()

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """An engine that hangs up is no error."""

        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"model": self}))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def keep(self, asked):
        """Keeps a request. Returns its number among the requests to the model, and its script."""
        with self.lock:
            is_first = asked.kind == "model" and not any(other.kind == "model" for other in self.all_asked)
            self.asked.append(asked)
            self.all_asked.append(asked)
            number = sum(other.kind == "model" for other in self.asked)
            script = self.otherwise
            if asked.kind == "model" and self.answers:
                script = self.answers.pop(0)
        if is_first:
            self.at_first_request()
        if asked.kind == "model" and self.choose:
            script = self.choose(asked, number)
        return number, script

    def take(self):
        """The requests since the last call."""
        with self.lock:
            taken, self.asked = self.asked, []
        return taken

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None
    # After CONNECT to port 80 this connection carries plain HTTP for the town.
    is_tunnel = False

    def log_message(self, *_):
        """Writes nothing to stderr."""

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def give(self, status, body, content_type="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self):
        raw = self.read_body()
        try:
            body = json.loads(raw or b"null")
        except ValueError:
            body = raw.decode(errors="replace")
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = f"http://{self.headers.get('Host')}{self.path}" if self.is_tunnel else self.path
        kind = kind_of(self.command, target)
        asked = Asked(kind, self.command, target, body, headers, time.monotonic())
        number, script = self.model.keep(asked)
        if kind == "proxied":
            self.answer_proxied()
        elif kind == "other":
            self.answer_other()
        elif self.command != "POST":
            self.give(404, {"error": {"message": "not found"}})
        elif kind == "model":
            self.answer_model(asked, number, script)
        elif kind == "search":
            found = {
                "site_name": "town",
                "title": "T",
                "url": f"https://{TOWN}/",
                "snippet": "a snippet",
                "content": "",
                "date": "2026-01-01",
                "icon": "",
                "mime": "",
            }
            self.give(200, {"search_results": [found]})
        elif kind == "fetch":
            self.give(200, b"# A page that Kimi has fetched\n", "text/markdown")
        else:
            self.answer_tool_server(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_CONNECT = answer

    def answer_proxied(self):
        """Answers as a proxy. Its town has one page, and no server that speaks TLS."""
        if self.command == "CONNECT" and self.path.endswith(":80"):
            self.is_tunnel, self.close_connection = True, False
            self.send_response(200)
            self.end_headers()
        elif self.command == "CONNECT":
            self.close_connection = True
            self.give(403, {"error": {"message": "closed"}})
        else:
            self.give(200, b"<html><body><p>A page of the town.</p></body></html>", "text/html")

    def answer_other(self):
        """Answers as a login server that knows no login, and as an API that has no other path."""
        if self.path.startswith("/api/oauth/"):
            self.give(401, {"error": "invalid_grant", "error_description": "The refresh token is revoked"})
        else:
            self.give(404, {"error": {"message": "not found"}})

    def answer_tool_server(self, body):
        if "id" not in body:
            return self.give(202, b"")
        method = body.get("method")
        if method == "initialize":
            result = {
                "protocolVersion": body["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "mock", "version": "1"},
            }
        elif method == "tools/list":
            fields = {"text": {"type": "string"}, "n": {"type": "integer", "minimum": 1}}
            result = {
                "tools": [
                    {
                        "name": "add_note",
                        "description": "Adds a note.",
                        "inputSchema": {"type": "object", "properties": fields, "required": ["text"]},
                    }
                ]
            }
        elif method == "tools/call":
            text = "noted: " + json.dumps(body["params"]["arguments"])
            result = {"content": [{"type": "text", "text": text}]}
        else:
            error = {"code": -32601, "message": "no such method"}
            return self.give(200, {"jsonrpc": "2.0", "id": body["id"], "error": error})
        return self.give(200, {"jsonrpc": "2.0", "id": body["id"], "result": result})

    def answer_model(self, asked, number, script):
        if refused := re.match(r"ERR (\d+)", script):
            error = {"message": "mock error", "type": "server_error"}
            return self.give(int(refused[1]), {"error": error})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        try:
            self.stream(asked, number, script)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return None

    def stream(self, asked, number, script):
        self.number = number
        self.delta(role="assistant", content="")
        calls, usage, reason = 0, USAGE, None
        for line in script.split("\n"):
            verb, _, rest = line.partition(" ")
            if verb == "SAY":
                self.delta(content=rest)
            elif verb == "THINK":
                self.delta(reasoning_content=rest)
            elif verb == "LONG":
                for at in range(0, int(rest), PIECE_BYTES):
                    self.delta(content="A long answer has many words, and more. "[: int(rest) - at])
            elif verb == "TOKENS":
                usage = {**USAGE, "prompt_tokens": int(rest), "total_tokens": int(rest) + 10}
            elif verb == "SLOW":
                self.delta(content="a first word ")
                time.sleep(float(rest))
            elif verb == "CUT":
                self.connection.shutdown(2)
                return
            elif verb == "CALL":
                tool, _, arguments = rest.partition(" ")
                self.delta(
                    tool_calls=[
                        {
                            "index": calls,
                            "id": f"{tool}:{number}-{calls}",
                            "type": "function",
                            "function": {"name": tool, "arguments": ""},
                        }
                    ]
                )
                for at in range(0, len(arguments), PIECE_BYTES):
                    piece = {"arguments": arguments[at : at + PIECE_BYTES]}
                    self.delta(tool_calls=[{"index": calls, "function": piece}])
                calls += 1
            elif verb == "WAIT":
                time.sleep(float(rest))
            elif verb == "FINISH":
                reason = rest
            elif verb == "DONE":
                self.finish(asked, reason, calls, usage)
            elif verb == "MOMENT":
                self.model.at_moment(asked, rest)
            else:
                raise ValueError(f"The script has no verb {verb!r}")
        if not asked.is_done:
            self.finish(asked, reason, calls, usage)

    def finish(self, asked, reason, calls, usage):
        reason = reason or ("tool_calls" if calls else "stop")
        self.chunk([{"index": 0, "delta": {}, "finish_reason": reason, "usage": usage}])
        self.chunk([], usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")
        self.wfile.flush()
        asked.is_done = True

    def delta(self, **what):
        self.chunk([{"index": 0, "delta": what, "finish_reason": None}])

    def chunk(self, choices, **more):
        whole = {
            "id": f"chatcmpl-{self.number}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": "kimi-for-coding",
            "choices": choices,
            **more,
        }
        self.wfile.write(b"data: " + json.dumps(whole).encode() + b"\n\n")
        self.wfile.flush()
