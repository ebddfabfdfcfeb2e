import assert from "node:assert/strict";
import { test } from "node:test";
import type { StreamRequest, StreamResponse, UnaryRequest } from "@connectrpc/connect";
import { ActiveCalls } from "./active-calls.ts";

/** Passes a streaming call through, as the server does, and gives what its caller would read. */
async function streamCall(calls: ActiveCalls, signal: AbortSignal): Promise<AsyncIterable<unknown>> {
  const request = { stream: true, method: { name: "WatchJob" }, signal } as unknown as StreamRequest;
  async function* messages(): AsyncGenerator<number> {
    yield 1;
  }
  const answer = { stream: true, message: messages() } as unknown as StreamResponse;
  const response = await calls.interceptor(async () => answer)(request);
  return (response as unknown as { message: AsyncIterable<unknown> }).message;
}

async function isIdle(calls: ActiveCalls): Promise<boolean> {
  return await Promise.race([
    calls.idle().then(() => true),
    Promise.resolve()
      .then(() => Promise.resolve())
      .then(() => false),
  ]);
}

test("a stream counts until its last message, and once", async () => {
  const calls = new ActiveCalls();
  const caller = new AbortController();
  const messages = await streamCall(calls, caller.signal);
  assert.equal(await isIdle(calls), false);
  for await (const _ of messages) assert.equal(await isIdle(calls), false);
  await calls.idle();
  // The caller's end comes after that of the stream, and takes no other call out.
  const other = await streamCall(calls, new AbortController().signal);
  caller.abort();
  assert.equal(await isIdle(calls), false);
  for await (const _ of other);
  await calls.idle();
});

test("a stream that nobody reads counts until its caller has left", async () => {
  const calls = new ActiveCalls();
  const caller = new AbortController();
  await streamCall(calls, caller.signal);
  assert.equal(await isIdle(calls), false);
  caller.abort();
  await calls.idle();
});

test("a call that fails counts no longer", async () => {
  const calls = new ActiveCalls();
  const request = { stream: false, method: { name: "GetJob" }, signal: new AbortController().signal };
  const call = calls.interceptor(() => Promise.reject(new Error("refused")))(
    request as unknown as UnaryRequest,
  );
  await assert.rejects(call, /refused/);
  await calls.idle();
});
