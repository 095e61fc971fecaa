import { Code } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";

import { RepriseError } from "../sdk/errors";
import { checkHistory, checkName, checkText } from "../sdk/validate";

test("names: whatever a person is called, and no more than a key can carry", () => {
  const good = ["a", "alice", "auth0|abc", "alice@example.com", "josé", "花子", "Ж", "مريم", "👩‍🚀", "x".repeat(128), "é".repeat(64)];
  for (const name of good) assert.equal(checkName("room", name), undefined, name);
  const bad: [string, RegExp][] = [
    ["", /empty/],
    ["two words", /spaces/],
    ["tab\t", /spaces/],
    ["no\u00a0break", /spaces/],
    ["ideographic\u3000space", /spaces/],
    ["nul\0", /control/],
    ["line\n", /control/],
    ["\u0085", /control/],
    ["half\ud83d", /surrogate/],
    ["\udc00half", /surrogate/],
    ["jose\u0301", /normal form C/],
    ["x".repeat(129), /at most 128 bytes.*has 129/],
    ["é".repeat(65), /at most 128 bytes.*has 130/],
  ];
  for (const [name, why] of bad) {
    const error = checkName("room", name);
    assert.ok(error instanceof RepriseError, JSON.stringify(name));
    assert.match(error.message, why);
    assert.deepEqual([error.code, error.reason, error.fields[0]?.field], [Code.InvalidArgument, "INVALID_FIELD", "room"]);
    assert.ok(error.final);
  }
});

test("texts: well-formed, not empty, within the limit in bytes", () => {
  for (const text of ["x", " ", "two\nlines", "👩‍🚀", "\u202eright to left", "é".repeat(50)]) assert.equal(checkText(text, 100), undefined);
  for (const text of ["", "caf\ud83d", "\udc00", "x".repeat(101), "é".repeat(51)]) assert.ok(checkText(text, 100), JSON.stringify(text));
});

test("histories: a whole number, and no more events than a server sends", () => {
  for (const count of [0, 1, 1000]) assert.equal(checkHistory(count), undefined, String(count));
  for (const count of [-1, 0.5, 1001, NaN, Infinity]) assert.equal(checkHistory(count)?.fields[0]?.field, "history", String(count));
});
