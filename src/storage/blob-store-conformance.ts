/** What every blob store promises, as tests. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, test } from "node:test";
import type { BlobStore } from "./blob-store.ts";

export function blobStoreConformance(name: string, open: () => BlobStore): void {
  describe(`${name} blob store`, () => {
    test("a blob reads back as a whole and in ranges, with its size and digest", async () => {
      const store = open();
      const whole = Buffer.concat([Buffer.alloc(70_000, 1), Buffer.from("end")]);
      const put = await store.put("logs/2027/a-1.log", chunks(whole.subarray(0, 10), whole.subarray(10)));
      assert.deepEqual(put, { bytes: 70_003, sha256: createHash("sha256").update(whole).digest("hex") });
      assert.equal(await store.size("logs/2027/a-1.log"), 70_003);
      const read = async (start: number, end: number) =>
        Buffer.from(await store.read("logs/2027/a-1.log", { start, end }));
      assert.deepEqual(await read(0, 70_003), whole);
      assert.equal((await read(70_000, 70_003)).toString(), "end");
      assert.equal((await read(70_001, 90_000)).toString(), "nd");
      assert.equal((await read(5, 5)).byteLength, 0);
      assert.equal((await read(90_000, 90_001)).byteLength, 0);
    });

    test("an empty blob is there", async () => {
      const store = open();
      assert.equal((await store.put("empty", chunks())).bytes, 0);
      assert.equal(await store.size("empty"), 0);
    });

    test("a second write replaces the first", async () => {
      const store = open();
      await store.put("again", chunks(Buffer.from("first and long")));
      await store.put("again", chunks(Buffer.from("second")));
      assert.equal(Buffer.from(await store.read("again", { start: 0, end: 99 })).toString(), "second");
    });

    test("an unknown blob has no size, cannot be read, and can be removed", async () => {
      const store = open();
      assert.equal(await store.size("no/such"), null);
      await assert.rejects(store.read("no/such", { start: 0, end: 1 }), { code: "not_found" });
      await store.remove("no/such");
    });

    test("a removed blob is gone", async () => {
      const store = open();
      await store.put("a/b", chunks(Buffer.from("x")));
      await store.remove("a/b");
      assert.equal(await store.size("a/b"), null);
    });

    test("a write whose source fails leaves nothing, and the older blob as it was", async () => {
      const store = open();
      await store.put("kept", chunks(Buffer.from("old")));
      await assert.rejects(store.put("kept", failing()), /source failed/);
      await assert.rejects(store.put("fresh", failing()), /source failed/);
      assert.equal(Buffer.from(await store.read("kept", { start: 0, end: 9 })).toString(), "old");
      assert.equal(await store.size("fresh"), null);
    });

    test("keys that could lead out of the store are refused", async () => {
      const store = open();
      for (const key of [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a//b",
        "a/",
        "A",
        "a\0b",
        "a/./b",
        ".",
        "ä",
        "x".repeat(600),
      ]) {
        await assert.rejects(async () => store.put(key, chunks()), { code: "invalid_argument" }, key);
        await assert.rejects(
          async () => store.read(key, { start: 0, end: 1 }),
          { code: "invalid_argument" },
          key,
        );
        await assert.rejects(async () => store.size(key), { code: "invalid_argument" }, key);
        await assert.rejects(async () => store.remove(key), { code: "invalid_argument" }, key);
      }
    });
  });
}

export async function* chunks(...parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

async function* failing(): AsyncGenerator<Uint8Array> {
  yield Buffer.from("partial");
  throw new Error("source failed");
}
