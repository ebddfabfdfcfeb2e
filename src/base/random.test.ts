import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, type Clock } from "./clock.ts";
import { secretCheck, sha256Hex, systemRandom, uuidV4, uuidV7, type Random } from "./random.ts";

test("a UUID of version 7 carries the time, the version and the variant", () => {
  const clock: Clock = { ...systemClock, nowMs: () => 0x0123_4567_89ab };
  const random: Random = { fraction: () => 0, bytes: (count) => new Uint8Array(count).fill(0xff) };
  assert.equal(uuidV7(clock, random), "01234567-89ab-7fff-bfff-ffffffffffff");
});

test("UUIDs of version 7 sort by the time they were made, and are unique", () => {
  const made = Array.from({ length: 1_000 }, (_, nowMs) =>
    uuidV7({ ...systemClock, nowMs: () => nowMs * 1_000 }, systemRandom),
  );
  assert.deepEqual(made.toSorted(), made);
  assert.equal(new Set(made).size, made.length);
});

test("bytes that lie inside a larger buffer are used from their place", () => {
  const pool = new Uint8Array(64).fill(0xee);
  const random: Random = { fraction: () => 0, bytes: (count) => pool.subarray(8, 8 + count).fill(0x11) };
  assert.match(uuidV7(systemClock, random), /-7111-9111-111111111111$/);
  assert.deepEqual([pool[7], pool[24]], [0xee, 0xee]);
});

test("bytes that were handed out are never handed out again, nor changed", () => {
  const pieces = Array.from({ length: 2_000 }, () => systemRandom.bytes(16));
  const copies = pieces.map((bytes) => Buffer.from(bytes).toString("hex"));
  assert.equal(new Set(copies).size, 2_000);
  pieces[0]?.fill(0);
  assert.deepEqual(
    pieces.slice(1).map((bytes) => Buffer.from(bytes).toString("hex")),
    copies.slice(1),
  );
  assert.equal(systemRandom.bytes(5_000).byteLength, 5_000);
});

test("chance lies in [0, 1)", () => {
  const fractions = Array.from({ length: 1_000 }, () => systemRandom.fraction());
  assert.ok(fractions.every((fraction) => fraction >= 0 && fraction < 1));
  assert.ok(new Set(fractions).size > 990);
});

test("secrets are equal only if every character is", () => {
  const isToken = secretCheck("token");
  assert.ok(isToken("token"));
  for (const other of ["", "Token", "token ", "toke", "tokeé", "tokén"]) assert.ok(!isToken(other), other);
});

test("a hash is SHA-256 in hex, and a UUID of version 4 one of version 4", () => {
  assert.equal(sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  assert.match(uuidV4(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
