import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  AttemptDirectories,
  attemptPaths,
  attemptsDirectory,
  emptyScript,
  type AttemptPaths,
} from "./attempt-directory.ts";

interface Setup {
  directories: AttemptDirectories;
  parent: string;
  /** Makes an attempt's directory, lets `change` do to it what a job does, and removes it. */
  use(attemptId: string, change: (paths: AttemptPaths) => void, verified?: boolean): Promise<void>;
  paths(attemptId: string): AttemptPaths;
}

async function setup(run: (setup: Setup) => Promise<void>): Promise<void> {
  const worker = mkdtempSync(join(tmpdir(), "hodei-attempts-"));
  const parent = attemptsDirectory(worker);
  mkdirSync(parent);
  const directories = new AttemptDirectories(worker);
  const paths = (attemptId: string) => attemptPaths(worker, attemptId);
  const use = async (attemptId: string, change: (paths: AttemptPaths) => void, verified = true) => {
    directories.make(paths(attemptId));
    change(paths(attemptId));
    await directories.remove(paths(attemptId), { verified });
    assert.equal(existsSync(paths(attemptId).root), false);
  };
  try {
    await run({ directories, parent, use, paths });
  } finally {
    rmSync(worker, { recursive: true });
  }
}

test("a directory that a job left as it was serves the next one, and its script is gone", () =>
  setup(async ({ directories, parent, use, paths }) => {
    let inode = 0;
    await use("one", ({ root, script }) => {
      inode = statSync(root).ino;
      writeFileSync(script, "secret", { mode: 0o700 });
    });
    assert.equal(readdirSync(parent).length, 1);
    directories.make(paths("two"));
    assert.deepEqual(readdirSync(parent), ["two"]);
    assert.equal(statSync(paths("two").root).ino, inode);
    assert.equal(statSync(paths("two").script).size, 0);
    await directories.remove(paths("two"), { verified: true });
    directories.close();
    assert.deepEqual(readdirSync(parent), []);
  }));

const CHANGES: Record<string, (paths: AttemptPaths) => void> = {
  "a file in the workspace": ({ workspace }) => writeFileSync(join(workspace, ".hidden"), ""),
  "a file in the temporary directory": ({ temporary }) => writeFileSync(join(temporary, "x"), ""),
  "an output file": ({ output }) => writeFileSync(output, "a=1\n"),
  "another mode of the workspace": ({ workspace }) => chmodSync(workspace, 0o755),
  "another mode of the directory itself": ({ root }) => chmodSync(root, 0o777),
  "a link in the place of the workspace": ({ workspace, temporary }) => {
    rmSync(workspace, { recursive: true });
    symlinkSync(temporary, workspace);
  },
  "a script with a second name": ({ root, script }) => {
    writeFileSync(script, "x", { mode: 0o700 });
    linkSync(script, join(root, "..", "..", "copy"));
  },
  "an empty script that others may write": ({ script }) => {
    writeFileSync(script, "");
    chmodSync(script, 0o666);
  },
};

for (const [name, change] of Object.entries(CHANGES)) {
  test(`a directory is not used again after ${name}`, () =>
    setup(async ({ parent, use }) => {
      await use("changed", change);
      assert.deepEqual(readdirSync(parent), []);
    }));
}

test("a directory whose processes were not seen to be gone is not used again", () =>
  setup(async ({ parent, use }) => {
    await use("unverified", () => {}, false);
    assert.deepEqual(readdirSync(parent), []);
  }));

test("a link in the place of the script is taken away, not what it leads to", () =>
  setup(async ({ directories, parent, paths }) => {
    const precious = join(parent, "precious");
    writeFileSync(precious, "kept", { mode: 0o700 });
    directories.make(paths("one"));
    symlinkSync(precious, paths("one").script);
    assert.equal(emptyScript(paths("one")), false);
    assert.equal(existsSync(paths("one").script), false);
    assert.equal(statSync(precious).size, 4);
  }));
