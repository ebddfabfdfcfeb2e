import assert from "node:assert/strict";
import { test } from "node:test";
import { makeControlPlane } from "./loop-fixtures.ts";
import { unusedTokensRound } from "./unused-tokens.ts";

const HOUR_MS = 60 * 60_000;

test("a worker whose token nobody used in time is gone, and no other one", async () => {
  const plane = makeControlPlane();
  const { store, clock, newId } = plane;
  const insert = async (provider: string): Promise<string> => {
    const id = newId();
    await store.insertWorker({ id, name: id, provider, pool: "", nowMs: clock.nowMs(), token: null });
    return id;
  };
  const unused = await insert("static");
  const ofPool = await insert("process");
  clock.advance(24 * HOUR_MS);
  const young = await insert("static");
  const stateOf = async (id: string) => (await store.getWorker(id))?.state;
  await unusedTokensRound(plane);
  assert.equal(await stateOf(unused), "creating", "its token may just have been used");
  clock.advance(2 * HOUR_MS);
  await unusedTokensRound(plane);
  assert.deepEqual(
    [await stateOf(unused), await stateOf(ofPool), await stateOf(young)],
    ["terminated", "creating", "creating"],
  );
});
