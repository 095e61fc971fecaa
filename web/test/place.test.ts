import assert from "node:assert/strict";
import { test } from "node:test";

import { backoffBounds, Backoff } from "../sdk/backoff";
import { Place } from "../sdk/place";
import { checkChange } from "../sdk/state";

test("a place remembers the stretches it has left, newest first, at most 8", () => {
  let place = new Place();
  for (let i = 1n; i <= 12n; i++) place = place.advance(`i_${i}`, i * 10n);
  assert.equal(place.offset, 120n);
  assert.equal(place.incarnation, "i_12");
  assert.deepEqual(place.earlier.map((s) => s.offset), [110n, 100n, 90n, 80n, 70n, 60n, 50n, 40n]);
});

test("a place holds an offset only under the incarnation it came with", () => {
  const place = new Place("i_1", 10n).advance("i_2", 20n);
  assert.ok(place.holds("i_2", 20n));
  assert.ok(place.holds("i_1", 10n));
  assert.ok(!place.holds("i_1", 15n), "past the end of its stretch");
  assert.ok(!place.holds("i_3", 5n), "unknown incarnation");
  assert.ok(!place.holds("i_2", 21n));
});

test("a rewind forgets the stretches that ended after it", () => {
  const place = new Place("i_1", 10n).advance("i_2", 20n).advance("i_3", 30n).rewind("i_2", 15n);
  assert.deepEqual([place.incarnation, place.offset], ["i_2", 15n]);
  assert.deepEqual(place.earlier, [{ incarnation: "i_1", offset: 10n }]);
});

test("offsets beyond 2^53 survive storage", () => {
  const offset = 2n ** 63n + 1n;
  const place = new Place("i_1", offset - 1n).advance("i_2", offset);
  const back = Place.fromJSON(JSON.parse(JSON.stringify(place)));
  assert.ok(back.equals(place));
  assert.deepEqual(back.earlier, place.earlier);
});

test("back-off: full jitter under a bound that doubles from 0.5 to 20 s", () => {
  const longest = new Backoff(() => 1);
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8].map(() => longest.next()), [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
  longest.reset();
  assert.equal(longest.next(), backoffBounds.first);
  assert.equal(new Backoff(() => 0).next(), 0);
});

test("states change only as the table says", () => {
  checkChange("live", "live");
  checkChange("live", "waiting");
  assert.throws(() => checkChange("idle", "live"));
  assert.throws(() => checkChange("closed", "waiting"));
});
