/** Chance and ids as a thing that is passed in, so that a seed can repeat a run. */

import { createHash, randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import type { Clock } from "./clock.ts";

export interface Random {
  /** In [0, 1). */
  fraction(): number;
  bytes(count: number): Uint8Array;
}

export const systemRandom: Random = {
  fraction: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
  bytes: pooledBytes(),
};

const POOL_BYTES = 4_096;

/** The system's random bytes, fetched many at a time: a call for each id costs more than the id. */
function pooledBytes(): (count: number) => Uint8Array {
  let pool = new Uint8Array(0);
  let used = 0;
  return (count) => {
    if (count > POOL_BYTES / 8) return randomBytes(count);
    if (used + count > pool.byteLength) {
      // A new one, because what was handed out belongs to the caller.
      pool = randomBytes(POOL_BYTES);
      used = 0;
    }
    used += count;
    return pool.subarray(used - count, used);
  };
}

/** A UUID of version 7 (RFC 9562, section 5.7): sorts by the time it was made. */
export function uuidV7(clock: Clock, random: Random): string {
  const bytes = random.bytes(16);
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const nowMs = clock.nowMs();
  view.setUint32(0, Math.floor(nowMs / 2 ** 16));
  view.setUint16(4, nowMs % 2 ** 16);
  view.setUint8(6, 0x70 | (view.getUint8(6) & 0x0f));
  view.setUint8(8, 0x80 | (view.getUint8(8) & 0x3f));
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** A UUID of version 4: nothing about it can be guessed. */
export function uuidV4(): string {
  return randomUUID();
}

/** SHA-256 in hex: how tokens are stored. They are random, so no slow hash is needed. */
export function sha256Hex(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/**
 * Compares with a secret in a time that does not depend on where a text differs from it. Its length
 * is no secret.
 */
export function secretCheck(secret: string): (given: string) => boolean {
  const expected = Buffer.from(secret);
  return (given) => {
    const bytes = Buffer.from(given);
    return bytes.byteLength === expected.byteLength && timingSafeEqual(bytes, expected);
  };
}
