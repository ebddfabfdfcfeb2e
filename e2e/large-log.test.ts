import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Place } from "./program.ts";

/** `HODEI_TEST_LOG_MIB=1024` is a log that fits into no buffer; the default keeps the suite quick. */
const LOG_MIB = Number(process.env["HODEI_TEST_LOG_MIB"] ?? "64");
const MAX_RSS_BYTES = 250 * 1024 * 1024;

/**
 * Writes lines of 1 MB, bytes that are no UTF-8 and short lines to both outputs, and leaves the
 * hash of each in a file.
 */
const WRITER = `
import hashlib, os, random, sys
random.seed(1)
total, directory = int(sys.argv[1]) * 1024 * 1024, sys.argv[2]
block = bytes(random.randrange(256) for _ in range(1 << 16))
pieces = [block, b"x" * 1000000 + b"\\n", b"short line\\n" * 5000, bytes(range(256)) * 300]
hashes, written, turn = [hashlib.sha256(), hashlib.sha256()], 0, 0
while written < total:
    piece, stream = pieces[turn % 4], 0 if turn % 3 else 1
    view = memoryview(piece)
    while len(view) > 0:
        view = view[os.write(stream + 1, view):]
    hashes[stream].update(piece)
    written, turn = written + len(piece), turn + 1
for stream, digest in enumerate(hashes):
    with open(os.path.join(directory, "hash-%d" % (stream + 1)), "w") as file:
        file.write(digest.hexdigest())
`;

describe(`a log of ${LOG_MIB} MiB`, () => {
  let place: Place;
  before(async () => {
    place = await Place.make();
    await place.startDev();
  });
  after(() => place.remove());

  test("comes back byte for byte, and no process grows beyond 250 MB", async () => {
    const writer = join(place.directory, "writer.py");
    await writeFile(writer, WRITER);
    const command = ["python3", writer, String(LOG_MIB), place.directory];
    const submitted = await place.run(["submit", "--name", "writer", "--", ...command]);
    const id = submitted.stdout.toString().trim();
    const watched = await place.run(["watch", id]);
    assert.equal(watched.code, 0, watched.stderr);

    const hashes = await Promise.all(
      (["stdout", "stderr"] as const).map((stream) =>
        hashOf(place, ["logs", id, "--raw", "--stream", stream]),
      ),
    );
    const wanted = await Promise.all(
      [1, 2].map((stream) => readFile(join(place.directory, `hash-${stream}`), "utf8")),
    );
    assert.deepEqual(hashes, wanted);

    const peaks = await place.peakMemory();
    for (const name of ["server", "agent", "runner"] as const) {
      assert.ok(peaks[name] > 0 && peaks[name] < MAX_RSS_BYTES, `${name} used ${peaks[name]} bytes`);
    }
    if (LOG_MIB >= 1024) process.stdout.write(`# peak memory in bytes: ${JSON.stringify(peaks)}\n`);
  });
});

async function hashOf(place: Place, args: string[]): Promise<string> {
  const child = place.start(args);
  child.stdin?.end();
  const hash = createHash("sha256");
  assert.ok(child.stdout);
  for await (const chunk of child.stdout) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
