import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { locatePackage, provideBinaries, removeOldCopies } from "./binaries.ts";

const root = mkdtempSync(join(tmpdir(), "hodei-binaries-"));
after(() => rmSync(root, { recursive: true, force: true }));

/** A package as npm unpacks it when install scripts are off: without the symbolic links. */
function setup(name: string): { directory: string; version: string; major: string; parent: string } {
  const directory = join(root, name, "native");
  for (const path of ["bin", "lib/postgresql/pgxs", "share/postgresql"])
    mkdirSync(join(directory, path), { recursive: true });
  writeFileSync(join(directory, "bin/postgres"), "program", { mode: 0o600 });
  writeFileSync(join(directory, "lib/libpq.so.5.18"), "library", { mode: 0o644 });
  writeFileSync(join(directory, "lib/libpq.a"), "dead weight");
  writeFileSync(join(directory, "share/postgresql/postgres.bki"), "data", { mode: 0o600 });
  const links = [{ source: "native/lib/libpq.so.5.18", target: "native/lib/libpq.so.5" }];
  writeFileSync(join(directory, "pg-symlinks.json"), JSON.stringify(links));
  const parent = join(root, name, "home");
  mkdirSync(parent);
  return { directory, version: "18.4.0", major: "18", parent };
}

test("the package for this platform is found, with its version", () => {
  const found = locatePackage();
  assert.ok(existsSync(join(found.directory, "bin", "postgres")));
  assert.match(found.version, /^\d+\.\d+/);
  assert.equal(found.major, found.version.split(".")[0]);
});

test("a package without its links is copied with them, readable and executable for everybody", () => {
  const { parent, ...found } = setup("unlinked");
  const { directory } = provideBinaries(found, { parent, mustCopy: false });
  assert.equal(directory, join(parent, "18.4.0"));
  assert.equal(readlinkSync(join(directory, "lib/libpq.so.5")), "libpq.so.5.18");
  assert.equal(statSync(join(directory, "bin/postgres")).mode & 0o777, 0o755);
  assert.equal(statSync(join(directory, "share/postgresql/postgres.bki")).mode & 0o777, 0o644);
  assert.equal(statSync(join(found.directory, "bin/postgres")).mode & 0o777, 0o600);
  assert.equal(existsSync(join(directory, "lib/libpq.a")), false);
  assert.deepEqual(readdirSync(parent), ["18.4.0"]);
  assert.equal(provideBinaries(found, { parent, mustCopy: false }).directory, directory);
});

test("a new version is copied beside the old one, and only copies are ever removed", () => {
  const { parent, ...found } = setup("upgraded");
  provideBinaries(found, { parent, mustCopy: true });
  provideBinaries({ ...found, version: "18.5.0" }, { parent, mustCopy: true });
  mkdirSync(join(parent, "data"));
  removeOldCopies(parent, "18.5.0");
  assert.deepEqual(readdirSync(parent).toSorted(), ["18.5.0", "data"]);
});
