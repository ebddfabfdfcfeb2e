import assert from "node:assert/strict";
import { test } from "node:test";
import { StartedServices } from "./started-services.ts";

test("stops in reverse order, once, and tells what it waits for", async () => {
  const started = new StartedServices();
  const stopped: string[] = [];
  let release: () => void = () => {};
  started.add("database", { stop: async () => void stopped.push("database") });
  started.add("port", {
    stop: () =>
      new Promise((resolve) => {
        release = () => {
          stopped.push("port");
          resolve();
        };
      }),
  });
  assert.equal(started.stopsNow, null);
  const stopping = started.stop();
  assert.equal(started.stop(), stopping);
  assert.equal(started.stopsNow, "port");
  release();
  await stopping;
  assert.deepEqual(stopped, ["port", "database"]);
  assert.equal(started.stopsNow, null);
});

test("goes on after a failure and reports it", async () => {
  const started = new StartedServices();
  let isStopped = false;
  started.add("first", {
    stop: async () => {
      isStopped = true;
    },
  });
  started.add("second", { stop: () => Promise.reject(new Error("second fails")) });
  await assert.rejects(started.stop(), /second fails/);
  assert.ok(isStopped);
});
