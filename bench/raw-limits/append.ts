/** How fast one file grows if its bytes must be on the disk. */

import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BenchRow, durationMs, medianOf } from "../bench-row.ts";

const WRITE_BYTES = 1024 * 1024;
const WRITES = 256;
const WRITES_PER_SYNC = 8;

export const fileAppend: BenchRow = {
  name: "raw: append to a file, fdatasync each 8 MiB",
  target: "",
  rawName: "bare Node",
  run: async () => ({ value: null, raw: await appendMegabytesPerSecond(), unit: "MB/s" }),
};

export async function appendMegabytesPerSecond(): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "hodei-bench-"));
  const bytes = Buffer.alloc(WRITE_BYTES, "a");
  try {
    return await medianOf(3, async () => {
      const path = join(folder, "append");
      const file = await open(path, "w");
      const tookMs = await durationMs(async () => {
        for (let index = 1; index <= WRITES; index += 1) {
          await file.write(bytes);
          if (index % WRITES_PER_SYNC === 0) await file.datasync();
        }
      });
      await file.close();
      await rm(path);
      return (WRITES * WRITE_BYTES) / 1e6 / (tookMs / 1_000);
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
