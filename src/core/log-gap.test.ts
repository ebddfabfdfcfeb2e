import assert from "node:assert/strict";
import { test } from "node:test";
import { describeGap, describeSize, gapRecord, LOG_GAP_REASONS, readGap, type LogGap } from "./log-gap.ts";
import { decodeRecord, encodeRecord } from "./log-record.ts";

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

test("a gap comes back from its record as it was", () => {
  for (const reason of LOG_GAP_REASONS) {
    for (const bytes of [null, 0, 1, 2 ** 53 - 1]) {
      const gap: LogGap = { reason, bytes, limitBytes: reason === "log_quota" ? 4096 : null };
      const record = decodeRecord(encodeRecord(gapRecord(gap, 7)), 0);
      assert.deepEqual([record?.stream, record?.timeMs], ["gap", 7]);
      assert.deepEqual(readGap(record?.data ?? new Uint8Array()), gap);
    }
  }
});

test("the payload is the documented JSON", () => {
  const { data } = gapRecord({ reason: "log_quota", bytes: 12, limitBytes: 1024 }, 0);
  assert.equal(new TextDecoder().decode(data), '{"reason":"log_quota","bytes":12,"limit_bytes":1024}');
});

test("a payload that is no gap of this version reads as null", () => {
  for (const text of [
    "",
    "null",
    "7",
    "{",
    '{"reason":"moon","bytes":1,"limit_bytes":null}',
    '{"reason":"disk_full","limit_bytes":null}',
    '{"reason":"disk_full","bytes":-1,"limit_bytes":null}',
    '{"reason":"disk_full","bytes":0.5,"limit_bytes":null}',
  ]) {
    assert.equal(readGap(bytesOf(text)), null, text);
  }
  assert.equal(readGap(Uint8Array.of(0xff, 0xfe)), null);
});

test("a gap is told in a sentence", () => {
  const quota = { reason: "log_quota", limitBytes: 4 * 2 ** 30 } as const;
  assert.equal(
    describeGap({ ...quota, bytes: 13_207_024_435 }),
    "12.3 GiB of output left out: log quota of 4 GiB",
  );
  assert.equal(describeGap({ ...quota, bytes: null }), "output from here on left out: log quota of 4 GiB");
  assert.equal(
    describeGap({ reason: "worker_lost", bytes: null, limitBytes: null }),
    "what came after this was lost with the worker",
  );
  const sentences = (["disk_full", "worker_lost", "not_received"] as const).map((reason) =>
    describeGap({ reason, bytes: 100, limitBytes: null }),
  );
  assert.deepEqual(sentences, [
    "100 B of output lost: the disk of the worker was full",
    "100 B of output lost with the worker",
    "100 B of output never arrived from the worker",
  ]);
});

test("a size has at most one decimal and the largest unit that fits", () => {
  const sizes = [0, 1023, 1024, 1536, 1024 * 1024 - 1, 2 ** 40, 2 ** 51].map(describeSize);
  assert.deepEqual(sizes, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "1 TiB", "2048 TiB"]);
});
