/** Placement keys, read back: so whoever has the key of a job needs not read its definition. */

import type { Placement } from "./placement.ts";

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
