import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { blobStoreConformance, chunks } from "./blob-store-conformance.ts";
import { openDirectoryBlobStore } from "./directory-blob-store.ts";

const root = mkdtempSync(join(tmpdir(), "hodei-blobs-"));
after(() => rmSync(root, { recursive: true, force: true }));

let opened = 0;
const setup = () => join(root, String((opened += 1)));

blobStoreConformance("directory", () => openDirectoryBlobStore(setup()));

test("blobs outlive the store, and no partial files are left", async () => {
  const directory = setup();
  await openDirectoryBlobStore(directory).put("deep/er/blob", chunks(Buffer.from("kept")));
  const again = openDirectoryBlobStore(directory);
  assert.equal(Buffer.from(await again.read("deep/er/blob", { start: 0, end: 4 })).toString(), "kept");
  assert.deepEqual(readdirSync(join(directory, "..partial")), []);
});

test("a file in place of the directory is told with its name", () => {
  const path = setup();
  writeFileSync(path, "");
  assert.throws(() => openDirectoryBlobStore(path), {
    name: "AppError",
    message: new RegExp(`open blob directory ${path}`),
  });
});
