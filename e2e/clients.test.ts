import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { finished, Place, type Finished } from "./program.ts";

/** Debian's own Python, which is the one that Debian's grpcio is for. */
const PYTHON = "/usr/bin/python3";
const hasGrpc = spawnSync(PYTHON, ["-c", "import grpc, google.protobuf"]).status === 0;
const hasJq = spawnSync("jq", ["--version"]).status === 0 && spawnSync("curl", ["--version"]).status === 0;

const SCRIPT = "for i in 1 2 3; do echo line $i; sleep 0.2; done; echo apart >&2; exit 3";

describe("clients that know only the protocol", () => {
  let place: Place;
  let ports: { http: string; grpc: string };
  before(async () => {
    place = await Place.make();
    const { url } = await place.startDev();
    ports = { http: url, grpc: await place.grpcAddress() };
  });
  after(() => place.remove());

  test(
    "curl with JSON submits a job, follows its log and knows its exit code",
    { skip: !hasJq && "needs curl and jq" },
    async () => {
      const result = await runClient(place, ["bash", "examples/clients/curl.sh", SCRIPT], {
        HODEI_SERVER: ports.http,
      });
      assert.equal(result.code, 3, result.stderr);
      assert.equal(result.stdout.toString(), "line 1\nline 2\nline 3\n");
      assert.match(result.stderr, /apart/);
    },
  );

  test("Debian's python3-grpcio does the same", { skip: !hasGrpc && "needs python3-grpcio" }, async () => {
    const command = [PYTHON, "examples/clients/submit_and_follow.py", SCRIPT];
    const result = await runClient(place, command, { HODEI_GRPC: ports.grpc });
    assert.equal(result.code, 3, result.stderr);
    assert.equal(result.stdout.toString(), "line 1\nline 2\nline 3\n");
    assert.match(result.stderr, /apart/);
  });
});

function runClient(
  place: Place,
  [program = "", ...args]: string[],
  env: Record<string, string>,
): Promise<Finished> {
  const child = spawn(program, args, { env: place.environment(env), stdio: ["ignore", "pipe", "pipe"] });
  return finished(child);
}
