import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  LOG_STREAMS,
  MAX_RECORD_DATA_BYTES,
  MalformedLogError,
  RECORD_HEADER_BYTES,
  RECORD_OVERHEAD_BYTES,
  decodeRecord,
  decodeRecords,
  encodeRecord,
  wholeRecordsLength,
  writeRecordFrame,
  type DecodedRecord,
  type LogRecord,
} from "./log-record.ts";

const anyRecord: fc.Arbitrary<LogRecord> = fc.record(
  {
    stream: fc.constantFrom(...LOG_STREAMS),
    timeMs: fc.double(),
    data: fc.uint8Array({ maxLength: 300 }),
  },
  { noNullPrototype: true },
);
const anyLog = fc
  .array(anyRecord, { maxLength: 12 })
  .map((records) => ({ records, bytes: encodeLog(records) }));

test("a record is laid out as the format says", () => {
  const bytes = encodeRecord({
    stream: "stderr",
    timeMs: 1_700_000_000_123.5,
    data: Uint8Array.of(65, 0, 255),
  });
  const expected = Buffer.alloc(23);
  expected.writeUInt8(2, 0);
  expected.writeUInt32LE(3, 4);
  expected.writeDoubleLE(1_700_000_000_123.5, 8);
  expected.set([65, 0, 255], 16);
  expected.writeUInt32LE(3, 19);
  assert.deepEqual(Buffer.from(bytes), expected);
});

test("the numbers of the streams are those that logs on disk carry", () => {
  const numbers = LOG_STREAMS.map(
    (stream) => encodeRecord({ stream, timeMs: 0, data: new Uint8Array(0) })[0],
  );
  assert.deepEqual(Object.fromEntries(LOG_STREAMS.map((stream, index) => [stream, numbers[index]])), {
    stdout: 1,
    stderr: 2,
    system: 3,
    gap: 4,
  });
});

test("what was encoded is decoded, one record after the other, at any place in a buffer", () => {
  fc.assert(
    fc.property(anyLog, fc.nat(40), ({ records, bytes }, shift) => {
      const shifted = new Uint8Array(shift + bytes.byteLength + 7).fill(0xaa);
      shifted.set(bytes, shift);
      const decoded = [...decodeRecords(shifted.subarray(shift, shift + bytes.byteLength))];
      assert.deepEqual(decoded.map(withoutPlace), records);
      let offset = 0;
      for (const [index, record] of records.entries()) {
        offset += record.data.byteLength + RECORD_OVERHEAD_BYTES;
        assert.equal(decoded[index]?.nextOffset, offset);
      }
    }),
  );
});

test("the longest record is read, and a longer one is malformed", () => {
  const longest = encodeRecord({ stream: "stdout", timeMs: 1, data: new Uint8Array(MAX_RECORD_DATA_BYTES) });
  assert.equal(decodeRecord(longest, 0)?.data.byteLength, MAX_RECORD_DATA_BYTES);
  const longer = encodeRecord({
    stream: "stdout",
    timeMs: 1,
    data: new Uint8Array(MAX_RECORD_DATA_BYTES + 1),
  });
  assert.throws(() => decodeRecord(longer, 0), MalformedLogError);
});

test("decoding copies no payload", () => {
  const bytes = encodeRecord({ stream: "stdout", timeMs: 1, data: Uint8Array.of(1, 2, 3) });
  assert.equal(decodeRecord(bytes, 0)?.data.buffer, bytes.buffer);
});

test("a frame written around a payload in place is the same as encoding it", () => {
  fc.assert(
    fc.property(anyRecord, ({ stream, timeMs, data }) => {
      const bytes = new Uint8Array(data.byteLength + RECORD_OVERHEAD_BYTES).fill(0xff);
      bytes.set(data, RECORD_HEADER_BYTES);
      writeRecordFrame(new DataView(bytes.buffer), { stream, timeMs, size: data.byteLength });
      assert.deepEqual(bytes, encodeRecord({ stream, timeMs, data }));
    }),
  );
});

test("a log cut at any byte gives exactly the records that are whole before it", () => {
  fc.assert(
    fc.property(anyLog, ({ records, bytes }) => {
      for (let cut = 0; cut <= bytes.byteLength; cut += 1) {
        const decoded = [...decodeRecords(bytes.subarray(0, cut))];
        const end = decoded.at(-1)?.nextOffset ?? 0;
        assert.deepEqual(decoded.map(withoutPlace), records.slice(0, decoded.length));
        const next = records[decoded.length];
        if (next) assert.ok(end + next.data.byteLength + RECORD_OVERHEAD_BYTES > cut);
        assert.equal(wholeRecordsLength(bytes, cut), end);
        assert.equal(wholeRecordsLength(bytes.subarray(0, cut), Infinity), end);
      }
    }),
    { numRuns: 40 },
  );
});

test("every change of one byte of header or trailer is refused, waited for, or means another record", () => {
  const record: LogRecord = { stream: "stdout", timeMs: 5, data: Uint8Array.of(7, 8, 9) };
  const good = encodeRecord(record);
  for (let at = 0; at < good.byteLength; at += 1) {
    for (let value = 0; value < 256; value += 1) {
      if (value === good[at]) continue;
      const bytes = good.slice();
      bytes[at] = value;
      const outcome = outcomeOf(bytes, 0);
      if (at === 0)
        assert.equal(outcome === "malformed", value < 1 || value > LOG_STREAMS.length, `stream ${value}`);
      else if (at < 4) assert.equal(outcome, "malformed", `reserved byte ${at}`);
      else if (at === 4) assert.equal(outcome, value < 3 ? "malformed" : null, `length ${value}`);
      else if (at === 5) assert.equal(outcome, null, "a longer record is not whole yet");
      else if (at < 8) assert.notEqual(typeof outcome, "object", `length byte ${at}`);
      else if (at >= 19) assert.equal(outcome, "malformed", `trailer byte ${at}`);
      else assert.equal(typeof outcome, "object");
    }
  }
});

test("garbage is decoded as a record, as nothing yet, or as malformed, and never anything else", () => {
  const plausible = fc
    .tuple(
      fc.nat(4),
      fc.constantFrom(0, 0, 0, 1),
      fc.constantFrom(0, 1, 5, 64 * 1024, 2 ** 32 - 1),
      fc.uint8Array({ maxLength: 60 }),
    )
    .map(([stream, reserved, size, rest]) => {
      const bytes = new Uint8Array(8 + rest.byteLength);
      const view = new DataView(bytes.buffer);
      view.setUint8(0, stream);
      view.setUint8(1, reserved);
      view.setUint32(4, size, true);
      bytes.set(rest, 8);
      return bytes;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), plausible), fc.nat(220), (bytes, offset) => {
      for (const at of [0, offset]) {
        const outcome = outcomeOf(bytes, at);
        if (outcome === null || outcome === "malformed") continue;
        assert.ok(LOG_STREAMS.includes(outcome.stream));
        assert.equal(outcome.nextOffset, at + outcome.data.byteLength + RECORD_OVERHEAD_BYTES);
        assert.ok(outcome.nextOffset <= bytes.byteLength);
        const again = encodeRecord(outcome);
        if (!Number.isNaN(outcome.timeMs)) assert.deepEqual(again, bytes.slice(at, outcome.nextOffset));
      }
      const end = wholeRecordsLength(bytes, bytes.byteLength);
      assert.ok(end >= 0 && end <= bytes.byteLength);
    }),
    { numRuns: 5000 },
  );
});

test("a malformed log names the byte", () => {
  const good = encodeRecord({ stream: "stdout", timeMs: 1, data: new Uint8Array(30) });
  const bytes = Buffer.concat([good, Buffer.alloc(40, 0xee)]);
  assert.throws(() => [...decodeRecords(bytes)], { name: "MalformedLogError", message: /at byte 50: / });
});

function encodeLog(records: readonly LogRecord[]): Uint8Array {
  return new Uint8Array(Buffer.concat(records.map(encodeRecord)));
}

function withoutPlace({ stream, timeMs, data }: DecodedRecord): LogRecord {
  return { stream, timeMs, data: data.slice() };
}

function outcomeOf(bytes: Uint8Array, offset: number): DecodedRecord | null | "malformed" {
  try {
    return decodeRecord(bytes, offset);
  } catch (error) {
    assert.ok(error instanceof MalformedLogError, String(error));
    return "malformed";
  }
}
