import assert from "node:assert/strict";
import { closeSync, constants, existsSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { eventually } from "../../base/eventually.ts";
import { PipePool } from "./output-pipe.ts";

async function setup(run: (pool: PipePool) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "hodei-pipes-"));
  const pool = new PipePool(join(directory, "pipes"));
  try {
    await run(pool);
  } finally {
    await pool.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

test("a pipe is used again, and each user hears only its own output", () =>
  setup(async (pool) => {
    const heard: string[][] = [[], [], []];
    const paths = new Set<string>();
    for (const [index, texts] of heard.entries()) {
      const pipe = await pool.open((chunk) => texts.push(chunk.toString()));
      paths.add(pipe.path);
      writeSync(pipe.writeFd, `live ${index}`);
      await eventually(() => texts.length > 0);
      pipe.pause();
      writeSync(pipe.writeFd, `rest ${index}`);
      pool.release(pipe);
    }
    assert.deepEqual(
      heard,
      heard.map((_, index) => [`live ${index}`, `rest ${index}`]),
    );
    assert.equal(paths.size, 1);
  }));

test("a pipe that somebody still holds open is not used again", () =>
  setup(async (pool) => {
    const first = await pool.open(() => {});
    const foreign = openSync(first.path, constants.O_WRONLY);
    try {
      pool.release(first);
      const second = await pool.open(() => {});
      assert.notEqual(second.path, first.path);
      await eventually(() => !existsSync(first.path));
      pool.release(second);
    } finally {
      closeSync(foreign);
    }
  }));
