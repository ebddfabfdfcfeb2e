/** Placement keys, read back: so whoever has the key of a job needs not read its definition. */

import type { Placement } from "./placement.ts";

/** The part of a placement key that says nothing of sizes: equal for jobs that may be on the same workers. */
export function constraintsInKey(key: string): string {
  let from = 0;
  for (let size = 0; size < SIZES; size += 1) from = key.indexOf(",", from) + 1;
  return key.slice(from);
}

/** A placement key begins with the numbers of `Resources`. */
const SIZES = 4;

/** What a placement key was made from; everything but `preemptible`, which is not in it. */
export function placementOfKey(key: string): Omit<Placement, "preemptible"> {
  const [cpuMillis, memoryBytes, diskBytes, gpu, labels, ...more] = JSON.parse(key) as [
    number,
    number,
    number,
    number,
    [string, string][],
    Placement["selectorExpressions"]?,
    Placement["tolerations"]?,
    Placement["capabilities"]?,
    Placement["preferences"]?,
  ];
  const [selectorExpressions = [], tolerations = [], capabilities = [], preferences = []] = more;
  return {
    resources: { cpuMillis, memoryBytes, diskBytes, gpu },
    selector: Object.fromEntries(labels),
    selectorExpressions,
    tolerations,
    capabilities,
    preferences,
  };
}
