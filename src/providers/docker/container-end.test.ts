import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { describeEnd, type EndedState } from "./container-end.ts";
import { Engine } from "./engine.ts";

/** Nothing of these is read from what the container has said: the engine is not asked. */
const unasked = new Engine({ host: "unix:///nowhere/docker.sock", tlsDirectory: null, clock: systemClock });

function describe(state: Partial<EndedState>, memoryBytes = 0): Promise<string> {
  const ended = { ExitCode: 137, OOMKilled: false, Error: "", ...state };
  return describeEnd(unasked, { name: "worker", state: ended, memoryBytes });
}

test("names want of memory where the engine has seen it", async () => {
  assert.equal(
    await describe({ OOMKilled: true }, 8 * 2 ** 20),
    "its container ended with SIGKILL (code 137): the kernel killed for want of memory in it",
  );
});

test("supposes want of memory of what was killed under a limit, since engines miss the first moments", async () => {
  assert.equal(
    await describe({}, 8 * 2 ** 20),
    "its container ended with SIGKILL (code 137): perhaps for want of memory, its limit is 8Mi",
  );
  assert.equal(await describe({}), "its container ended with SIGKILL (code 137)");
  assert.equal(await describe({ ExitCode: 143 }, 8 * 2 ** 20), "its container ended with SIGTERM (code 143)");
});

test("passes on the engine's own words", async () => {
  assert.equal(
    await describe({ ExitCode: 128, Error: "no such device" }),
    "its container ended with code 128: no such device",
  );
});
