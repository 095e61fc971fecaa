import { create } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";

import { EventSchema, EventsSchema } from "#gen/event_pb";
import type { Events } from "#gen/event_pb";
import { GapReason, GapSchema, RewindSchema } from "#gen/position_pb";
import { RoomLog } from "../sdk/room-log";
import type { GapEntry } from "../sdk/room-log";
import { checkContinuous, events } from "./harness";

function run(first: number, last: number, incarnation = "i_1", after = first - 1): Events {
  const list = [];
  for (let offset = first; offset <= last; offset++) {
    const value = { text: `m${offset}` };
    const before = BigInt(offset === first ? after : offset - 1);
    list.push(create(EventSchema, { offset: BigInt(offset), after: before, sender: "bob", body: { case: "message", value } }));
  }
  return create(EventsSchema, { room: "lobby", incarnation, events: list });
}

function gap(first: number, last: number, recoverable = false, incarnation = "i_1") {
  return create(GapSchema, {
    room: "lobby",
    first: BigInt(first),
    last: BigInt(last),
    reason: GapReason.RETENTION,
    recoverable,
    incarnation,
  });
}

const accept = (log: RoomLog, { incarnation, events: list }: Events, replayed: boolean) => log.accept(incarnation, list, replayed);
const texts = (log: RoomLog) => events(log).map((e) => e.text);

test("events are taken exactly when `after` is what is held", () => {
  const log = new RoomLog("lobby");
  assert.equal(accept(log, run(1, 3), false), "new");
  assert.equal(accept(log, run(5, 6), false), "hole");
  assert.equal(accept(log, run(4, 5), false), "new");
  assert.equal(accept(log, run(2, 5), false), "held", "a second stream brings what is held");
  assert.equal(accept(log, run(4, 7), false), "new", "and goes on from there");
  assert.deepEqual(texts(log), ["m1", "m2", "m3", "m4", "m5", "m6", "m7"]);
  checkContinuous(log);
});

test("offsets may leave numbers out: `after` decides, not last + 1", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 2), false);
  assert.equal(accept(log, run(9, 9, "i_1", 2), false), "new");
  assert.equal(log.place.offset, 9n);
});

test("an offset that is held under another incarnation is a hole, not a repeat", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 5), false);
  assert.equal(accept(log, run(4, 4, "i_2"), false), "hole");
});

test("the end of a gap counts as held", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 2), false);
  assert.equal(log.gap(gap(3, 6)), "new");
  assert.equal(log.gap(gap(3, 6)), "held");
  assert.equal(accept(log, run(7, 8), false), "new");
  checkContinuous(log);
  assert.equal(log.gap(gap(11, 12)), "hole", "nobody said what became of 9 and 10");
});

test("a gap that overlaps what is held covers the rest", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 4), false);
  assert.equal(log.gap(gap(3, 6)), "new");
  assert.deepEqual([(log.entries[4] as GapEntry).first, log.place.offset], [5n, 6n]);
});

test("a rewind drops what came after it and says how much", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 5), false);
  log.gap(gap(6, 9));
  accept(log, run(10, 12), false);
  assert.equal(log.rewind(create(RewindSchema, { to: 7n, incarnation: "i_1" })), "new");
  assert.deepEqual(texts(log), ["m1", "m2", "m3", "m4", "m5"]);
  assert.deepEqual(log.entries.at(-1), { kind: "rewind", offset: 7n, dropped: 3 });
  assert.equal((log.entries[5] as GapEntry).last, 7n, "the gap is cut too");
  assert.equal(accept(log, run(8, 9, "i_2"), true), "new");
  checkContinuous(log);
  assert.equal(log.rewind(create(RewindSchema, { to: 20n })), "hole");
});

test("a rewind to the beginning", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 5), false);
  log.rewind(create(RewindSchema, { to: 0n }));
  assert.equal(accept(log, run(1, 2, "i_2"), true), "new");
  assert.deepEqual(log.place.earlier, []);
  assert.deepEqual(texts(log), ["m1", "m2"]);
});

test("a room that starts at its head has something before it", () => {
  const log = new RoomLog("lobby");
  assert.equal(log.startAt("i_1", 7n), "new");
  assert.equal(log.start, 8n);
  assert.equal(accept(log, run(8, 9), false), "new");
  log.prepend([run(4, 7)]);
  assert.deepEqual(texts(log), ["m4", "m5", "m6", "m7", "m8", "m9"]);
  log.prepend([run(1, 5)]);
  assert.equal(log.start, 0n);
  checkContinuous(log);
});

test("delivery that starts beyond what is held is marked, never silent", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 3), false);
  log.startAt("i_1", 8n);
  assert.deepEqual(log.entries.at(-1), {
    kind: "gap", first: 4n, last: 8n, reason: GapReason.POSITION_UNKNOWN, recoverable: true,
  });
  checkContinuous(log);
});

test("fetched pages fill a gap, and what is lost stays one", () => {
  const log = new RoomLog("lobby");
  accept(log, run(1, 2), false);
  log.gap(gap(3, 10, true));
  accept(log, run(11, 11), false);
  const whole = log.entries[2] as GapEntry;
  const rest = log.fill(whole, [run(5, 7)], true);
  assert.deepEqual([rest?.first, rest?.last], [8n, 10n]);
  assert.equal(log.fill(rest!, [run(8, 10)], false), undefined);
  checkContinuous(log);
  assert.deepEqual(log.entries.map((e) => e.kind), ["message", "message", "gap", ...Array(7).fill("message")]);
  assert.deepEqual(log.entries[2], { ...whole, first: 3n, last: 4n, recoverable: false });
  assert.equal(log.fill(whole, [run(5, 7)], false), undefined, "the gap is not there any more");
  checkContinuous(log);
});

test("a gap of which nothing is left is no longer recoverable", () => {
  const log = new RoomLog("lobby");
  log.gap(gap(1, 4, true));
  assert.equal(log.fill(log.entries[0] as GapEntry, [], false), undefined);
  assert.deepEqual(log.entries.length, 1);
  assert.equal((log.entries[0] as GapEntry).recoverable, false);
});

test("what is stored comes back the same, cut to the newest lines", () => {
  const log = new RoomLog("lobby");
  log.title = "Lobby";
  accept(log, run(1, 5), true);
  log.gap(gap(6, 8, true));
  log.rewind(create(RewindSchema, { to: 7n, incarnation: "i_1" }));
  accept(log, run(8, 9, "i_2"), false);
  const back = RoomLog.fromJSON("lobby", JSON.parse(JSON.stringify(log.toJSON(100))));
  assert.deepEqual(back.entries, log.entries);
  assert.ok(back.place.equals(log.place));
  const short = RoomLog.fromJSON("lobby", JSON.parse(JSON.stringify(log.toJSON(2))));
  assert.deepEqual(texts(short), ["m8", "m9"]);
  assert.equal(accept(short, run(10, 10, "i_2"), false), "new");
  checkContinuous(short);
});

test("memory is bounded: the oldest lines go, and can be fetched again", () => {
  const log = new RoomLog("lobby");
  for (let i = 1; i <= 5000; i += 100) accept(log, run(i, i + 99), false);
  assert.ok(log.entries.length <= 2000);
  assert.equal(log.place.offset, 5000n);
  assert.ok(log.start > 0n);
  checkContinuous(log);
});

test("who joined, left, was invited: and what a newer server says of members is not taken for one of these", () => {
  const log = new RoomLog("lobby");
  const list = [1, 2, 3, 99].map((kind, i) =>
    create(EventSchema, { offset: BigInt(i + 1), after: BigInt(i), sender: "bob", body: { case: "memberChange", value: { kind, user: "eve" } } }),
  );
  log.accept("i_1", list, false);
  assert.deepEqual(events(log).map((e) => [e.kind, e.text]), [["joined", "eve"], ["left", "eve"], ["invited", "eve"], ["unknown", "eve"]]);
  checkContinuous(log);
});
