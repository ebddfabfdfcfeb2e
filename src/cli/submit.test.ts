import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { cli, startFakeServer } from "./fake-server.ts";

test("what is queued before a later job is refused stands in the JSON", async (t) => {
  let calls = 0;
  const fake = await startFakeServer({
    jobs: {
      queueJobs: ({ jobs }) => {
        calls += 1;
        if (calls > 1)
          throw new ConnectError("queue job: queue bulk is full, no more", Code.ResourceExhausted);
        return { jobIds: jobs.map((_, index) => `id-${index}`) };
      },
    },
  });
  t.after(fake.close);
  const stdin = Array.from({ length: 1_500 }, () => '{"run":"true"}').join("\n");
  const run = await cli(["submit", "-", "-o", "json"], { url: fake.url, stdin });
  assert.equal(run.exitCode, 7);
  assert.equal((JSON.parse(run.stdout.text) as string[]).length, 1_000);
  assert.match(run.stderr.text, /submit 1500 jobs \(the first 1000 are queued\): queue bulk is full/);
});
