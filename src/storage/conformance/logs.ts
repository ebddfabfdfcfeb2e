/** Conformance of a store: where logs were sealed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Store } from "../store.ts";
import { newId, submit, applyOk, startJob, resultOf } from "./samples.ts";

export function logTests(store: () => Store): void {
  test("an ended attempt is unsealed until its log is sealed", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    const isUnsealed = async () => (await store().listUnsealed(10_000)).some(({ id }) => id === attemptId);
    assert.equal(await isUnsealed(), false);
    await applyOk(store(), jobId, { type: "finish", attemptId, result: resultOf() });
    assert.equal(await isUnsealed(), true);
    assert.equal(await store().getSealedLog(attemptId), null);
    const sealed = { attemptId, logBytes: 42, blobKey: `logs/${attemptId}`, digest: "ab" };
    await store().setSealedLog(sealed);
    await store().setSealedLog(sealed);
    assert.deepEqual(await store().getSealedLog(attemptId), sealed);
    assert.equal(await isUnsealed(), false);
    assert.equal((await store().listUnsealed(1)).length <= 1, true);
    await assert.rejects(store().setSealedLog({ ...sealed, attemptId: newId() }), { code: "not_found" });
  });

  test("an attempt that ended without a log is sealed by its end", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    await applyOk(store(), jobId, { type: "finish", attemptId, result: { ...resultOf(), logEnd: 0 } });
    const empty = { attemptId, logBytes: 0, blobKey: null, digest: null };
    assert.deepEqual(await store().getSealedLog(attemptId), empty);
    assert.equal(
      (await store().listUnsealed(10_000)).some(({ id }) => id === attemptId),
      false,
    );
  });

  test("an attempt that was lost is unsealed, whatever it has said", async () => {
    const jobId = await submit(store());
    const attemptId = await startJob(store(), jobId);
    await applyOk(store(), jobId, { type: "lose", attemptId, cause: "worker_lost", message: "" });
    assert.equal(
      (await store().listUnsealed(10_000)).some(({ id }) => id === attemptId),
      true,
    );
  });
}
