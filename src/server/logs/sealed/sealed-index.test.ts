import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  FOOTER_BYTES,
  decodeFooter,
  decodeIndex,
  encodeFooter,
  encodeIndex,
  frameAt,
  type Frame,
} from "./sealed-index.ts";

const anyFrames: fc.Arbitrary<Frame[]> = fc
  .array(
    fc.record({
      logBytes: fc.integer({ min: 1, max: 2 ** 21 }),
      blobBytes: fc.integer({ min: 1, max: 2 ** 21 }),
      earliestMs: fc.double({ noNaN: true }),
      latestMs: fc.double({ noNaN: true }),
      streams: fc.integer({ min: 0, max: 7 }),
    }),
    { maxLength: 20 },
  )
  .map((sizes) => {
    let logStart = 0;
    let blobStart = 0;
    return sizes.map((size) => {
      const frame = { ...size, logStart, blobStart };
      logStart += size.logBytes;
      blobStart += size.blobBytes;
      return frame;
    });
  });

test("index and footer are read as they were written", () => {
  fc.assert(
    fc.property(anyFrames, (frames) => {
      const { index, footerBytes, blobBytes } = encode(frames);
      const footer = decodeFooter(footerBytes, blobBytes) ?? assert.fail("no footer");
      assert.deepEqual(decodeIndex(index, footer), frames);
      assert.equal(decodeFooter(footerBytes, blobBytes + 1), null);
    }),
  );
});

test("any changed bit of index or footer is noticed", () => {
  fc.assert(
    fc.property(anyFrames, fc.nat(), fc.nat(7), (frames, place, bit) => {
      const { index, footerBytes, blobBytes } = encode(frames);
      const both = Buffer.concat([index, footerBytes]);
      const at = place % both.byteLength;
      both[at] = (both[at] ?? 0) ^ (1 << bit);
      const footer = decodeFooter(both.subarray(index.byteLength), blobBytes);
      assert.equal(footer && decodeIndex(both.subarray(0, index.byteLength), footer), null, `byte ${at}`);
    }),
    { numRuns: 500 },
  );
});

test("garbage is no footer, of whatever length", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: FOOTER_BYTES + 4 }), fc.nat(1000), (bytes, blobBytes) => {
      assert.equal(decodeFooter(bytes, blobBytes), null);
    }),
  );
});

test("the frame of every place is found", () => {
  fc.assert(
    fc.property(anyFrames, fc.nat(), (frames, place) => {
      const last = frames.at(-1);
      if (!last) return;
      const offset = place % (last.logStart + last.logBytes);
      const frame = frames[frameAt(frames, offset)] ?? assert.fail("no frame");
      assert.ok(frame.logStart <= offset && offset < frame.logStart + frame.logBytes);
    }),
  );
});

function encode(frames: readonly Frame[]): { index: Buffer; footerBytes: Buffer; blobBytes: number } {
  const last = frames.at(-1);
  const indexStart = last ? last.blobStart + last.blobBytes : 0;
  const index = encodeIndex(frames);
  const footerBytes = encodeFooter(index, { logBytes: last ? last.logStart + last.logBytes : 0, indexStart });
  return { index, footerBytes, blobBytes: indexStart + index.byteLength + FOOTER_BYTES };
}
