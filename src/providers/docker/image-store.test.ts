import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { gzipSync } from "node:zlib";
import { eventually } from "../../base/eventually.ts";
import { silentLogger } from "../../base/log.ts";
import { uuidV4 } from "../../base/random.ts";
import { ImageStore, registryOf, type ImageOptions } from "./image-store.ts";
import { tarArchive } from "./tar-archive.ts";
import { skipWithoutEngine, testEngine } from "./test-engine.ts";

const LOGIN = "robot:secret:word";

/** A registry on this machine that holds one image for those who log in, and the engine to pull it. */
async function setup(t: TestContext) {
  const registry = await startRegistry(t);
  const directory = await mkdtemp(join(tmpdir(), "hodei-logins-"));
  const authFile = join(directory, "config.json");
  const auth = Buffer.from(LOGIN).toString("base64");
  await writeFile(authFile, JSON.stringify({ auths: { [registry.host]: { auth } } }));
  const engine = testEngine();
  const image = `${registry.host}/test/${uuidV4()}:1`;
  t.after(async () => {
    const what = "remove the image";
    await engine.call({ method: "DELETE", path: `/images/${image}`, what }).catch(() => {
      // Tests of failures have none.
    });
    engine.close();
    await rm(directory, { recursive: true });
  });
  const open = (changes: Partial<ImageOptions> = {}): ImageStore =>
    new ImageStore(engine, { image, pull: "missing", authFile, log: silentLogger, ...changes });
  return { open, registry, directory, image };
}

async function startRegistry(t: TestContext) {
  const layer = await bytesOf();
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      config: { Env: ["FROM_REGISTRY=yes", "PATH=/bin"] },
      rootfs: { type: "layers", diff_ids: [digestOf(layer)] },
    }),
  );
  const zipped = gzipSync(layer);
  const blobs = new Map([config, zipped].map((blob) => [digestOf(blob), blob]));
  const type = "application/vnd.docker.distribution.manifest.v2+json";
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type,
      config: {
        mediaType: "application/vnd.docker.container.image.v1+json",
        size: config.length,
        digest: digestOf(config),
      },
      layers: [
        {
          mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
          size: zipped.length,
          digest: digestOf(zipped),
        },
      ],
    }),
  );
  let manifests = 0;
  const server = createServer((request, response) => {
    const login = Buffer.from((request.headers.authorization ?? "").slice("Basic ".length), "base64");
    if (login.toString("utf8") !== LOGIN) {
      response.writeHead(401, { "www-authenticate": 'Basic realm="test"' });
      response.end(JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "log in first" }] }));
      return;
    }
    const path = request.url ?? "";
    if (path.includes("/missing/")) {
      response.writeHead(404);
      response.end(JSON.stringify({ errors: [{ code: "MANIFEST_UNKNOWN", message: "manifest unknown" }] }));
      return;
    }
    const isManifest = path.includes("/manifests/");
    if (isManifest && request.method === "GET") manifests += 1;
    const body = isManifest ? manifest : (blobs.get(path.split("/blobs/")[1] ?? "") ?? Buffer.from("{}"));
    const headers = isManifest ? { "content-type": type, "docker-content-digest": digestOf(manifest) } : {};
    response.writeHead(200, { ...headers, "content-length": body.length });
    response.end(request.method === "HEAD" ? undefined : body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  return { host: `127.0.0.1:${port}`, manifestsRead: () => manifests };
}

async function bytesOf(): Promise<Buffer> {
  const archive = tarArchive([{ type: "file", name: "hello", mode: 0o644, content: Buffer.from(uuidV4()) }]);
  return Buffer.concat(await archive.toArray());
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

const skip = await skipWithoutEngine();

test(
  "pulls an image that is missing once for all who ask, with the login of its registry",
  { skip },
  async (t) => {
    const { open, registry } = await setup(t);
    const store = open();
    assert.equal(await store.config(), null);
    assert.equal(store.activity, null);
    const pulls = Promise.all([store.ensure(), store.ensure()]);
    await eventually(() => store.activity?.startsWith("pulling image ") === true);
    const found = await pulls;
    assert.equal(store.activity, null);
    const config = { variables: ["FROM_REGISTRY", "PATH"], volumes: [] };
    assert.deepEqual(found, [config, config]);
    assert.equal(registry.manifestsRead(), 1);
    await store.ensure();
    assert.equal(registry.manifestsRead(), 1);
  },
);

test(
  "looks for a newer image each time where that is asked for, and never where not",
  { skip },
  async (t) => {
    const { open, image } = await setup(t);
    await assert.rejects(open({ pull: "never" }).ensure(), {
      code: "not_found",
      message: `image ${image}: the engine does not have it, and pulling is set to never`,
    });
    const always = open({ pull: "always" });
    await always.ensure();
    await always.ensure();
    assert.deepEqual(await open({ pull: "never" }).ensure(), {
      variables: ["FROM_REGISTRY", "PATH"],
      volumes: [],
    });
  },
);

test("says what a registry refuses, and whether another try can help", { skip }, async (t) => {
  const { open, directory, registry } = await setup(t);
  const stranger = join(directory, "stranger.json");
  await writeFile(stranger, "{}");
  await assert.rejects(open({ authFile: stranger }).ensure(), {
    code: "not_found",
    message: /^pull image .*/,
  });
  await assert.rejects(open({ image: `${registry.host}/missing/image:1` }).ensure(), {
    code: "not_found",
    message: /manifest unknown|not found/,
  });
  await assert.rejects(open({ image: "127.0.0.1:9/nobody/there:1" }).ensure(), {
    code: "unavailable",
    message: /connection refused/,
  });
  const helper = join(directory, "helper.json");
  await writeFile(helper, JSON.stringify({ auths: { [registry.host]: {} }, credsStore: "desktop" }));
  await assert.rejects(open({ authFile: helper }).ensure(), {
    code: "failed_precondition",
    message: /credential helper is not asked/,
  });
});

test("knows the registry of an image by its name", () => {
  assert.equal(registryOf("debian"), "docker.io");
  assert.equal(registryOf("library/debian:12"), "docker.io");
  assert.equal(registryOf("ghcr.io/a/b@sha256:0"), "ghcr.io");
  assert.equal(registryOf("localhost/a"), "localhost");
  assert.equal(registryOf("host:5000/a"), "host:5000");
});

test("remembers why a download failed until the image is there", { skip }, async (t) => {
  const { open } = await setup(t);
  const images = open({ authFile: null });
  assert.equal(await images.problem(), null);
  await assert.rejects(images.ensure());
  assert.match((await images.problem()) ?? "", /^pull image .*: /);
  await open().ensure();
  assert.equal(await images.problem(), null);
});
