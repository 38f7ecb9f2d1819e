// Loaded into the engine before its own code: writes down every address that it connects to and every name
// that it looks up, so that a call which goes past the proxy is seen too. It changes nothing else.

const dns = require("node:dns");
const { appendFileSync } = require("node:fs");
const { syncBuiltinESMExports } = require("node:module");
const net = require("node:net");
const { join } = require("node:path");

// Beside the container's folders, where `client.py` reads it: HOME is home/node beneath the root.
const file = join(process.env.HOME, "../../connections");
const note = (what) => appendFileSync(file, `${what}\n`);

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const [first, second] = Array.isArray(given[0]) ? given[0] : given;
  const options = typeof first === "object" && first !== null ? first : { port: first, host: second };
  note(options.path ? `socket ${options.path}` : `connect ${options.host ?? "localhost"}:${options.port}`);
  return connect.apply(this, given);
};

for (const names of [dns, dns.promises]) {
  for (const method of ["lookup", "resolve", "resolve4", "resolve6"]) {
    const original = names[method];
    names[method] = (name, ...rest) => {
      if (!net.isIP(name)) note(`name ${name}`);
      return original.call(names, name, ...rest);
    };
  }
}
syncBuiltinESMExports();
