import assert from "node:assert/strict";
import { appendFile, mkdir, mkdtemp, readdir, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { encodeRecord } from "../core/log-record.ts";
import { segmentName, spoolDirectory } from "../protocol/spool-layout.ts";
import { SpoolReader } from "./spool-reader.ts";

const attemptId = "a-1";

function record(text: string): Buffer {
  return Buffer.from(encodeRecord({ stream: "stdout", timeMs: 1, data: Buffer.from(text) }));
}

/** A spool with these records in each segment. */
async function setup(t: TestContext, ...segments: string[][]) {
  const directory = await mkdtemp(join(tmpdir(), "hodei-spool-"));
  const spool = spoolDirectory(directory, attemptId);
  await mkdir(spool, { recursive: true });
  const reader = new SpoolReader(directory);
  t.after(async () => {
    await reader.close();
    await rm(directory, { recursive: true, force: true });
  });
  let end = 0;
  const starts: number[] = [];
  const all: Buffer[] = [];
  for (const texts of segments) {
    const bytes = Buffer.concat(texts.map(record));
    await writeFile(join(spool, segmentName(end)), bytes);
    starts.push(end);
    all.push(bytes);
    end += bytes.length;
  }
  const readAll = async (maxBytes: number): Promise<Buffer> => {
    const pieces: Buffer[] = [];
    for (let offset = 0; offset < end; offset += pieces.at(-1)?.length ?? 0) {
      pieces.push(Buffer.from(await reader.read({ attemptId, offset, maxBytes, logEnd: end })));
      assert.ok((pieces.at(-1)?.length ?? 0) <= maxBytes);
    }
    return Buffer.concat(pieces);
  };
  return { directory, spool, reader, end, starts, bytes: Buffer.concat(all), readAll };
}

async function openFiles(directory: string): Promise<number> {
  const names = await readdir("/proc/self/fd");
  const targets = await Promise.all(names.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => "")));
  return targets.filter((target) => target.startsWith(directory)).length;
}

test("hands out whole records over all segments, in pieces of the wanted size", async (t) => {
  const { readAll, bytes } = await setup(t, ["a", "bb", "ccc"], ["dddd"], ["e".repeat(900), "f"]);
  assert.deepEqual(await readAll(1_000), bytes);
});

test("goes on in a segment that was begun after the last one had been read to its end", async (t) => {
  const { reader, spool, end } = await setup(t, ["first"]);
  await reader.read({ attemptId, offset: 0, maxBytes: 1_000, logEnd: end });
  const next = record("second");
  await writeFile(join(spool, segmentName(end)), next);
  const read = await reader.read({ attemptId, offset: end, maxBytes: 1_000, logEnd: end + next.length });
  assert.deepEqual(Buffer.from(read), next);
});

test("reads what was appended to the segment since", async (t) => {
  const { reader, spool, end } = await setup(t, ["first"]);
  await reader.read({ attemptId, offset: 0, maxBytes: 1_000, logEnd: end });
  const next = record("more");
  await appendFile(join(spool, segmentName(0)), next);
  const read = await reader.read({ attemptId, offset: end, maxBytes: 1_000, logEnd: end + next.length });
  assert.deepEqual(Buffer.from(read), next);
});

test("refuses bytes of a segment that was removed", async (t) => {
  const { reader, spool, end } = await setup(t, ["first"], ["second"]);
  await rm(join(spool, segmentName(0)));
  await assert.rejects(reader.read({ attemptId, offset: 0, maxBytes: 1_000, logEnd: end }), {
    code: "data_loss",
  });
});

test("refuses an attempt whose spool is gone", async (t) => {
  const { reader, spool, end } = await setup(t, ["first"]);
  await rm(spool, { recursive: true });
  await assert.rejects(reader.read({ attemptId, offset: 0, maxBytes: 1_000, logEnd: end }), {
    code: "not_found",
  });
});

test("refuses a spool that is shorter than it was said to be", async (t) => {
  const { reader, end } = await setup(t, ["first"]);
  await assert.rejects(reader.read({ attemptId, offset: end, maxBytes: 1_000, logEnd: end + 50 }), {
    code: "data_loss",
  });
});

test("keeps no file open of a forgotten attempt, also when it was just read", async (t) => {
  const { reader, directory, end, starts } = await setup(t, ["first"], ["second"]);
  await reader.read({ attemptId, offset: 0, maxBytes: 1_000, logEnd: end });
  assert.equal(await openFiles(directory), 1);
  const reading = reader
    .read({ attemptId, offset: starts[1] ?? 0, maxBytes: 1_000, logEnd: end })
    .catch(() => null);
  await Promise.all([reading, reader.forget(attemptId)]);
  assert.equal(await openFiles(directory), 0);
});
