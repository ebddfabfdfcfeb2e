/** A small disk for tests, so that it can be full: a tmpfs of its own. Mounting needs root. */

import { execFile } from "node:child_process";
import { mkdtemp, open, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { promisify } from "node:util";
import { systemErrorCode } from "./errors.ts";

const run = promisify(execFile);
const PIECE_BYTES = 64 * 1024;

export interface SmallDisk {
  path: string;
  /** Writes until nothing fits any more. What is returned makes room again. */
  fill(): Promise<() => Promise<void>>;
}

/** Null, with the test skipped, where nothing can be mounted. */
export async function mountSmallDisk(t: TestContext, sizeBytes: number): Promise<SmallDisk | null> {
  const path = await mkdtemp(join(tmpdir(), "hodei-small-disk-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes},mode=0700`, "hodei-test", path]);
  } catch (error) {
    await rmdir(path);
    t.skip(`cannot mount a small disk: ${String(error)}`);
    return null;
  }
  t.after(async () => {
    // Lazily: a failed test may have left something open.
    await run("umount", ["--lazy", path]);
    await rmdir(path);
  });
  return { path, fill: () => fill(join(path, "ballast")) };
}

async function fill(path: string): Promise<() => Promise<void>> {
  const file = await open(path, "w");
  try {
    for (let size = PIECE_BYTES; size >= 1; size = Math.floor(size / 2)) {
      while (await fits(() => file.write(Buffer.alloc(size)))) continue;
    }
  } finally {
    await file.close();
  }
  return () => rm(path, { force: true });
}

async function fits(write: () => Promise<{ bytesWritten: number }>): Promise<boolean> {
  try {
    return (await write()).bytesWritten > 0;
  } catch (error) {
    if (systemErrorCode(error) === "ENOSPC") return false;
    throw error;
  }
}
