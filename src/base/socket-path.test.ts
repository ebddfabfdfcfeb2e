import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { withSocketPath } from "./socket-path.ts";

const skip = process.platform === "linux" ? false : "needs /proc";

test("a socket in a directory with a long path is that one and no other", { skip }, async (t) => {
  const root = mkdtempSync(join(tmpdir(), "hodei-socket-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  // Cut to what an address holds, the two would be the same.
  for (const name of ["one", "two"]) {
    const directory = join(root, "d".repeat(120), name);
    mkdirSync(directory, { recursive: true });
    const server = createServer((socket) => socket.end(name));
    await withSocketPath(join(directory, "s"), (path) => once(server.listen(path), "listening"));
    t.after(() => server.close());
    assert.deepEqual(readdirSync(directory), ["s"]);
  }
  for (const name of ["one", "two"]) {
    const path = join(root, "d".repeat(120), name, "s");
    const answer = await withSocketPath(path, (short) => once(connect(short), "data"));
    assert.equal(String(answer[0]), name);
  }
});

test("a short path stays as it is", async () => {
  assert.equal(await withSocketPath("/run/s", (path) => Promise.resolve(path)), "/run/s");
});

test("a directory that is not there is said", { skip }, async () => {
  const path = `/nowhere/${"d".repeat(120)}/s`;
  await assert.rejects(
    withSocketPath(path, (short) => Promise.resolve(short)),
    { code: "ENOENT" },
  );
});
