/**
 * The log of every attempt as a formula: byte n of a run's log is known without storing it, so a
 * megabyte of log costs nothing and every byte can be checked.
 */

import { MAX_LOG_BATCH_BYTES } from "../src/core/link.ts";

/** Prime, so that a shift by any power of two is noticed. */
const PERIOD = 251;
const PATTERN = Uint8Array.from({ length: MAX_LOG_BATCH_BYTES + 2 * PERIOD }, (_, index) => index % PERIOD);

/** `run` tells apart the logs of commands that were started more than once for one attempt. */
export function logBytes(place: {
  attemptId: string;
  run: number;
  offset: number;
  length: number;
}): Uint8Array {
  const start = (place.offset + phaseOf(place.attemptId, place.run)) % PERIOD;
  return PATTERN.subarray(start, start + place.length);
}

export function isLogBytes(
  data: Uint8Array,
  place: { attemptId: string; run: number; offset: number },
): boolean {
  return Buffer.compare(data, logBytes({ ...place, length: data.byteLength })) === 0;
}

function phaseOf(attemptId: string, run: number): number {
  let phase = run * 97;
  for (let index = attemptId.length - 8; index < attemptId.length; index += 1) {
    phase = (phase * 31 + attemptId.charCodeAt(index)) % 65_521;
  }
  return phase % PERIOD;
}
