/** Hashes the log that the server has, without holding it, and compares it with a job's own account. */

import { createHash, type Hash } from "node:crypto";
import { LogStream } from "../../src/protocol/gen/hodei/v1/logs_pb.ts";
import type { ClusterClient } from "../cluster-client.ts";
import type { StreamAccount, TalkEnd } from "./talking-job.ts";

export interface LogAccount {
  stdout: StreamAccount;
  stderr: StreamAccount;
  /** What Hodei itself says. */
  system: string;
  /** Nothing will be added. */
  isComplete: boolean;
}

const READ_TIMEOUT_MS = 10 * 60_000;

export async function accountOfLog(
  client: ClusterClient,
  jobId: string,
  attempt: number,
): Promise<LogAccount> {
  const stdout = new Counter();
  const stderr = new Counter();
  let system = "";
  let isComplete = false;
  for await (const answer of client.logs.readLog({ jobId, attempt }, { timeoutMs: READ_TIMEOUT_MS })) {
    for (const { stream, data } of answer.entries) {
      if (stream === LogStream.STDOUT) stdout.add(data);
      else if (stream === LogStream.STDERR) stderr.add(data);
      else system += Buffer.from(data).toString();
    }
    isComplete = answer.complete;
  }
  return { stdout: stdout.account(), stderr: stderr.account(), system, isComplete };
}

/** What is wrong, in words; empty if the log is whole. */
export function compareLog(log: LogAccount, printed: TalkEnd | null): string[] {
  if (printed === null) return ["the job never printed its last line"];
  const problems: string[] = [];
  if (!log.isComplete) problems.push("the log is not complete");
  for (const name of ["stdout", "stderr"] as const) {
    if (log[name].sha256 === printed[name].sha256) continue;
    problems.push(`${name}: printed were ${describe(printed[name])}, the log has ${describe(log[name])}`);
  }
  return problems;
}

export function describe({ bytes, sha256 }: StreamAccount): string {
  return `${bytes} bytes, sha256 ${sha256}`;
}

class Counter {
  readonly #hash: Hash = createHash("sha256");
  #bytes = 0;

  add(data: Uint8Array): void {
    this.#hash.update(data);
    this.#bytes += data.byteLength;
  }

  account(): StreamAccount {
    return { bytes: this.#bytes, sha256: this.#hash.digest("hex") };
  }
}
