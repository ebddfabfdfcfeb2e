/**
 * Small disks below the data directory, so that they can be full. They are mounted in a mount
 * namespace of our own and end with it.
 */

import { execFile } from "node:child_process";
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { systemErrorCode } from "../src/base/errors.ts";
import type { Cluster } from "./cluster.ts";

const run = promisify(execFile);

export type SmallDisk = "workers" | "logs";
const SMALL_DISKS: readonly SmallDisk[] = ["workers", "logs"];
const SIZE = "256m";
const PIECE_BYTES = 1024 * 1024;
const SMALLEST_PIECE_BYTES = 512;

/** To be called before the server starts. */
export async function mountSmallDisks(cluster: Cluster): Promise<void> {
  await mkdir(cluster.dataDirectory, { recursive: true, mode: 0o755 });
  for (const name of SMALL_DISKS) {
    const path = join(cluster.dataDirectory, name);
    await mkdir(path, { mode: 0o700 });
    await run("mount", ["-t", "tmpfs", "-o", `size=${SIZE},mode=0700`, `hodei-chaos-${name}`, path]);
  }
}

/** Returns what could not be unmounted. */
export async function unmountSmallDisks(cluster: Cluster): Promise<string[]> {
  const busy: string[] = [];
  for (const name of SMALL_DISKS) {
    const path = join(cluster.dataDirectory, name);
    await run("umount", [path]).catch(() => busy.push(path));
  }
  return busy;
}

/** Writes until nothing fits any more. The function that is returned makes room again. */
export async function fillDisk(cluster: Cluster, name: SmallDisk): Promise<() => Promise<void>> {
  const path = join(cluster.dataDirectory, name, "ballast");
  const file = await open(path, "w");
  try {
    for (let size = PIECE_BYTES; size >= SMALLEST_PIECE_BYTES; size /= 2) {
      const piece = Buffer.alloc(size);
      while (await fits(() => file.write(piece))) continue;
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
