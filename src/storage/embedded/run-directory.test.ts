import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { runDirectoryOf } from "./run-directory.ts";

const SOCKET_NAME_BYTES = "/.s.PGSQL.5432".length;

/** Lets this process have another directory for temporary files. */
function useTemporary(t: TestContext, directory: string): void {
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = directory;
  t.after(() => {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  });
}

test("the socket lies beside the data as long as its path fits", () => {
  assert.equal(runDirectoryOf("/var/lib/hodei/postgres"), "/var/lib/hodei/postgres/run");
});

test("a long path has its socket among the temporary files, and in /tmp if theirs is long as well", (t) => {
  const home = `/home/${"h".repeat(100)}/postgres`;
  const root = realpathSync(mkdtempSync("/tmp/hodei-run-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  useTemporary(t, root);
  const near = runDirectoryOf(home);
  assert.ok(near.startsWith(join(root, "hodei-postgres-")), near);

  const long = join(root, "t".repeat(100));
  mkdirSync(long);
  useTemporary(t, long);
  assert.equal(tmpdir(), long);
  const far = runDirectoryOf(home);
  assert.match(far, /^\/tmp\/hodei-postgres-[0-9a-f]{16}$/);
  assert.ok(far.length + SOCKET_NAME_BYTES <= 103);
  assert.notEqual(runDirectoryOf(`${home}2`), far, "each has its own");
});
