/** Finds what a caller means by an id or the beginning of one. */

import { AppError } from "../../base/errors.ts";
import type { Job } from "../../core/job.ts";
import type { Worker } from "../../core/worker.ts";
import type { ResolvedId, Store } from "../../storage/store.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** @throws AppError `not_found`, or `invalid_argument` if the beginning fits several. */
export async function findJob(store: Store, idOrPrefix: string): Promise<Job> {
  const id = await findId({ kind: "job", idOrPrefix, resolve: (prefix) => store.resolveJobId(prefix) });
  return (await store.getJob(id)) ?? notFound("job", idOrPrefix);
}

/** @throws AppError `not_found`, or `invalid_argument` if the beginning fits several. */
export async function findWorker(store: Store, idOrPrefix: string): Promise<Worker> {
  const id = await findId({ kind: "worker", idOrPrefix, resolve: (prefix) => store.resolveWorkerId(prefix) });
  return (await store.getWorker(id)) ?? notFound("worker", idOrPrefix);
}

/** A whole id is returned as it is, whether it exists or not. */
async function findId(options: {
  kind: string;
  idOrPrefix: string;
  resolve: (prefix: string) => Promise<ResolvedId>;
}): Promise<string> {
  const prefix = options.idOrPrefix.toLowerCase();
  if (UUID.test(prefix)) return prefix;
  const resolved = await options.resolve(prefix);
  switch (resolved.found) {
    case "one":
      return resolved.id;
    case "none":
      return notFound(options.kind, options.idOrPrefix);
    case "many":
      throw new AppError(
        "invalid_argument",
        `${options.kind} id ${options.idOrPrefix} is ambiguous: it fits ${resolved.examples.join(", ")}`,
      );
  }
}

export function notFound(kind: string, id: string): never {
  throw new AppError("not_found", `${kind} ${id} not found`);
}
