// Negative controls: breaks one rule at a time on purpose, and fails unless
// the unit tests notice. A rule that can be broken unnoticed is not tested.
import { build } from "esbuild";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { common } from "./esbuild.mjs";

/** What is broken, where, and how: the text to replace and its replacement. */
const controls = [
  ["P2: `after` is not looked at", "room-log.ts", "event.after !== this.#place.offset || ", ""],
  ["P2: what is held is taken again", "room-log.ts", "if (this.#place.holds(incarnation, event.offset)) continue;", ""],
  ["P2: a gap does not move the place", "room-log.ts", "this.#place = this.#place.advance(gap.incarnation, last);", ""],
  ["P2: a rewind keeps what came after it", "room-log.ts", "return entry.offset <= to ? entry", "return entry.offset <= to + 1n ? entry"],
  ["P2: the incarnation of an offset is not looked at", "place.ts", "if (incarnation === this.incarnation) return true;", "return true;"],
  ["P2: the end of a replay is believed", "session.ts", "return held < offset ?", "return held < -1n ?"],
  ["P2: an old stream is still believed after a move", "connection.ts", 'if (retired && frame.case !== "receipt"', 'if (false && frame.case !== "receipt"'],
  ["R34: a room that is back is said to be unavailable still", "session.ts", 'log.unavailable = "";', ""],
  ["R34: a room that a resume finds unchanged is said to be unavailable still", "session.ts", 'this.#setUnavailable(log, "");', ""],
  ["P4: a message gets a new client_id when it is sent again", "sender.ts", "value: { room, text, clientId }", "value: { room, text, clientId: this.env.id() }"],
  ["P4: what was under way when the stream was lost is not sent again", "outbox.ts", "this.#inFlight.clear();\n    return struck", "return struck"],
  ["P4: the outbox does not survive a reload", "outbox.ts", "this.store.saveOutbox(this.#sends);", "true;"],
  ["P4: a room's messages overtake each other", "outbox.ts", "busy.has(send.room)", "false"],
  ["P7: a lost session begins at the heads", "session.ts", ".filter((log) => !acks.covers(log))", ".filter(() => false)"],
  ["P13: all positions are always sent", "session.ts", ".filter((log) => !acks.covers(log))", ""],
  ["acknowledged before it is stored", "keeper.ts", "if (!this.#volatile && !this.#write())", "if (false)"],
  ["the place is stored without its newest line", "room-log.ts", "this.#entries.slice(-limit)", "this.#entries.slice(-limit, -1)"],
  ["a copied tab pretends to be its origin", "session.ts", "mine ? session.instance : this.#env.id()", "session?.instance ?? this.#env.id()"],
  ["Fenced is resumed from", "connection.ts", 'if (!retired) this.#close(fenced)', 'if (false) this.#close(fenced)'],
  ["a heartbeat is not answered", "connection.ts", 'if (!retired) attachment.link.send({ frame: { case: "ack"', 'if (false) attachment.link.send({ frame: { case: "ack"'],
  ["a silent stream is not noticed", "connection.ts", "now - lastFrame > heartbeatMs + graceMs", "false"],
  ["the server's hint is not kept to", "connection.ts", "asked > 0 ? asked : ownMs", "ownMs"],
  ["R33: the hint of a Welcome keeps a client away whose link comes and goes", "connection.ts", "Math.min(asked, lived / awayShare)", "asked"],
  ["R33: the hint of a Welcome is not kept to", "connection.ts", "Math.min(asked, lived / awayShare)", "Math.min(backoffBounds.first, lived / awayShare)"],
  ["a stranger's answer is a verdict", "errors.ts", "textOf(info, 2) === domain", "true"],
  ["any answer is a verdict", "errors.ts", 'if (this.reason === "") return false;', ""],
  ["RESOURCE_EXHAUSTED is always waited for", "errors.ts", "return this.retryAfterMs === undefined;", "return false;"],
  ["a text is not looked at before it is sent", "session.ts", 'checkName("room", room) ?? checkText(text, this.#textBytes)', "undefined"],
  ["what no server takes for a history is asked for", "validate.ts", "return fits ? undefined :", "return fits || !fits ? undefined :"],
  ["a request may stay without an answer for ever", "sender.ts", "() => this.#settle(requestId, late)", "() => {}"],
  ["requests outlive a session that is closed", "session.ts", "this.#sender.rejectAll(new RepriseError(message, code, { reason }));", ""],
  ["a frame that cannot be encoded ends the stream", "link.ts", "out.push(encodable(frame))", "out.push(frame)"],
  ["a message is resent for ever to a server that ends the stream for it", "outbox.ts", "strikes >= maxStrikes", "false"],
  ["a request is resent for ever to a server that ends the stream for it", "sender.ts", "++request.strikes >= maxStrikes", "false"],
  ["progress does not start the back-off again", "connection.ts", "proven || attachment.progressed", "lived >= 10_000"],
  ["a Welcome alone starts the back-off again", "connection.ts", "proven || attachment.progressed", "true"],
  ["headers before an error are lost", "grpc-websocket.ts", "error.metadata.append(name, value)", "name + value"],
  ["a server that is down is taken for a blocked websocket", "carrier.ts", "await this.probe()", "this.#refused++"],
];

async function survives(file, from, to) {
  const out = await mkdtemp(join(tmpdir(), "reprise-web-control-"));
  const broken = {
    name: "break",
    setup: ({ onLoad }) =>
      onLoad({ filter: new RegExp(`sdk/${file.replace(".", "\\.")}$`) }, async ({ path }) => {
        const source = await readFile(path, "utf8");
        if (source.split(from).length !== 2) throw new Error(`${file} does not have exactly once: ${from}`);
        return { contents: source.replace(from, () => to), loader: "ts" };
      }),
  };
  const names = ["place", "validate", "grpc-websocket", "room-log", "verdict", "sending", "session", "flapping", "random"];
  await build({
    ...common,
    entryPoints: names.map((name) => `test/${name}.test.ts`),
    outdir: out,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    target: "node20",
    write: true,
    logLevel: "error",
    plugins: [broken],
  });
  // In this order the quick ones come first: most controls fail there.
  for (const name of names) {
    const child = spawn(process.execPath, ["--test", join(out, `${name}.test.mjs`)], { stdio: "ignore", timeout: 60_000 });
    const code = await new Promise((resolve) => child.on("exit", resolve));
    if (code !== 0) {
      await rm(out, { recursive: true });
      return false;
    }
  }
  await rm(out, { recursive: true });
  return true;
}

const only = process.argv[2] ?? "";
let failed = 0;
for (const [what, file, from, to] of controls.filter(([what]) => what.includes(only))) {
  const survived = await survives(file, from, to);
  console.log(`${survived ? "NOT NOTICED" : "noticed    "}  ${what}`);
  if (survived) failed++;
}
console.log(`${failed} of ${controls.length} broken rules were not noticed`);
process.exit(failed ? 1 : 0);
