import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { eventually } from "../../base/eventually.ts";
import { FakeProvider } from "../../providers/fake/fake-provider.ts";
import { makeControlPlane } from "../loops/loop-fixtures.ts";
import { fixedPools, type Pool } from "./pool.ts";
import { samplePoolOf } from "./pools-fixtures.ts";
import { Provisioner } from "./provisioner.ts";
import { ProvisioningLoops } from "./provisioning-loops.ts";

function setup(t: TestContext) {
  const plane = makeControlPlane();
  let answer = (): void => {};
  const answerDelay = new Promise<void>((resolve) => (answer = resolve));
  const stuck = new FakeProvider({ answerDelay });
  const sound = new FakeProvider();
  /** A test may change what there is. */
  const pools: Pool[] = [
    samplePoolOf(stuck, { name: "stuck", minWorkers: 1 }, { providerName: "stuck" }),
    samplePoolOf(sound, { name: "sound", minWorkers: 1 }, { providerName: "sound" }),
  ];
  /** How many providers were needed when the others were closed. */
  const kept: number[] = [];
  const source = {
    ...fixedPools(pools),
    closeUnused: async (used: ReadonlySet<unknown>) => void kept.push(used.size),
  };
  const provisioner = new Provisioner({ ...plane, pools: source, serverUrl: () => "http://127.0.0.1:1" });
  const loops = new ProvisioningLoops({ ...plane, provisioner });
  t.after(async () => {
    provisioner.stopListening();
    answer();
    await loops.stop();
    await loops.stop();
  });
  return { ...plane, stuck, sound, pools, kept, provisioner, loops, answer };
}

test("a provider that does not answer holds up the pools of no other one", async (t) => {
  const { stuck, sound, loops, connect } = setup(t);
  await eventually(() => stuck.asked.length === 1 && sound.instances.size === 1);
  for (let lost = 1; lost <= 3; lost += 1) {
    const [id = ""] = sound.instances;
    connect(id, { pool: "sound" });
    sound.lose(id);
    await eventually(() => {
      loops.hint();
      return sound.specs.length === lost + 1 && sound.instances.size === 1;
    });
  }
  assert.deepEqual(stuck.asked, ["list"], "it is asked one thing at a time");
  assert.equal(stuck.specs.length, 0);
});

test("a provider that answers again gets what its pools lack, once", async (t) => {
  const { stuck, sound, loops, answer } = setup(t);
  await eventually(() => stuck.asked.length === 1);
  loops.hint();
  answer();
  await eventually(() => stuck.instances.size === 1);
  loops.hint();
  await eventually(() => stuck.asked.length >= 3);
  assert.deepEqual([stuck.specs.length, sound.specs.length], [1, 1]);
});

test("looks after a pool that comes, and keeps a provider for as long as it is asked something", async (t) => {
  const { stuck, pools, kept, loops, answer } = setup(t);
  await eventually(() => stuck.asked.length === 1);
  const added = new FakeProvider();
  pools.push(samplePoolOf(added, { name: "added", minWorkers: 1 }, { providerName: "added" }));
  loops.hint();
  await eventually(() => added.instances.size === 1);
  pools.shift();
  const before = kept.length;
  loops.hint();
  await eventually(() => kept.length > before);
  assert.equal(kept.at(-1), 3, "it was closed in the middle");
  answer();
  await eventually(() => {
    loops.hint();
    return kept.at(-1) === 2;
  });
  assert.equal(stuck.specs.length, 0);
});
