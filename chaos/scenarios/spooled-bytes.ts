/** How much log of an attempt its worker keeps, the part that the server has acknowledged included. */

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Attempt } from "../../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { spoolDirectory } from "../../src/protocol/spool-layout.ts";
import type { Cluster } from "../cluster.ts";

/** Segments that were acknowledged as a whole are removed and do not count. */
export async function spooledBytes(cluster: Cluster, { id, workerId }: Attempt): Promise<number> {
  const spool = spoolDirectory(join(cluster.dataDirectory, "workers", workerId), id);
  let bytes = 0;
  for (const name of await readdir(spool)) bytes += (await stat(join(spool, name))).size;
  return bytes;
}
