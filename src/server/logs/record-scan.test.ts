import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  LOG_STREAMS,
  MalformedLogError,
  decodeRecords,
  encodeRecord,
  type LogRecord,
} from "../../core/log-record.ts";
import { ALL_STREAMS, recordBefore, scanRecords, streamBit } from "./record-scan.ts";

const anyRecords: fc.Arbitrary<LogRecord[]> = fc.array(
  fc.record({
    stream: fc.constantFrom(...LOG_STREAMS),
    timeMs: fc.double({ noNaN: true }),
    data: fc.uint8Array({ maxLength: 40 }),
  }),
  { maxLength: 10 },
);

test("a scan covers enough, ends with a record, and sums up what it has walked over", () => {
  fc.assert(
    fc.property(anyRecords, fc.nat(400), fc.nat(60), (records, enoughBytes, cutBytes) => {
      const bytes = Buffer.concat(records.map(encodeRecord));
      const cut = bytes.subarray(0, Math.max(0, bytes.byteLength - cutBytes));
      const scan = scanRecords(cut, enoughBytes);
      const whole = [...decodeRecords(cut)];
      const count = whole.filter((record) => record.nextOffset <= scan.end).length;
      const covered = whole.slice(0, count);
      assert.equal(scan.end, covered.at(-1)?.nextOffset ?? 0);
      assert.ok(scan.end >= enoughBytes || count === whole.length);
      assert.ok((covered.at(-2)?.nextOffset ?? 0) < enoughBytes || count <= 1);
      assert.equal(scan.isMalformed, false);
      assert.equal(
        scan.streams,
        covered.reduce((bits, record) => bits | streamBit(record.stream), 0),
      );
      assert.equal(scan.earliestMs, Math.min(...covered.map((record) => record.timeMs)));
      assert.equal(scan.latestMs, Math.max(...covered.map((record) => record.timeMs)));
    }),
  );
});

test("a scan and a decoder stop at the same byte of garbage", () => {
  fc.assert(
    fc.property(anyRecords, fc.uint8Array({ maxLength: 60 }), (records, garbage) => {
      const bytes = Buffer.concat([...records.map(encodeRecord), garbage]);
      let end = 0;
      let isMalformed = false;
      try {
        for (const record of decodeRecords(bytes)) end = record.nextOffset;
      } catch (error) {
        assert.ok(error instanceof MalformedLogError);
        isMalformed = true;
      }
      const scan = scanRecords(bytes, bytes.byteLength);
      assert.deepEqual({ end: scan.end, isMalformed: scan.isMalformed }, { end, isMalformed });
    }),
    { numRuns: 1000 },
  );
});

test("walking backwards meets the same records as walking forwards", () => {
  fc.assert(
    fc.property(anyRecords, (records) => {
      const bytes = Buffer.concat(records.map(encodeRecord));
      const forwards = [...decodeRecords(bytes)];
      let end = bytes.byteLength;
      for (const record of forwards.toReversed()) {
        const found = recordBefore(bytes, end) ?? assert.fail("no record");
        assert.deepEqual(found.record, record);
        end = found.start;
      }
      assert.equal(end, 0);
      assert.equal(recordBefore(bytes, end), null);
    }),
  );
});

test("looking back from a place in garbage finds nothing or a malformed log", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, place) => {
      const end = Math.min(place, bytes.byteLength);
      try {
        const found = recordBefore(bytes, end);
        if (found) assert.equal(found.record.nextOffset, end);
      } catch (error) {
        assert.ok(error instanceof MalformedLogError);
      }
    }),
    { numRuns: 2000 },
  );
});

test("every stream has a bit of its own", () => {
  assert.deepEqual(LOG_STREAMS.map(streamBit), [1, 2, 4, 8]);
  assert.equal(ALL_STREAMS, 15);
});
