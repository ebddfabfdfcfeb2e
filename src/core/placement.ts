/** What decides on which workers a job may run. */

import type { JobDefinition } from "./job.ts";

/** The part of a job's definition that says where it may run and where it would rather. */
export type Placement = Pick<
  JobDefinition,
  | "resources"
  | "selector"
  | "selectorExpressions"
  | "tolerations"
  | "capabilities"
  | "preferences"
  | "preemptible"
>;

export function placementOf(definition: JobDefinition): Placement {
  const { resources, selector, selectorExpressions, tolerations, capabilities, preferences, preemptible } =
    definition;
  return { resources, selector, selectorExpressions, tolerations, capabilities, preferences, preemptible };
}

/**
 * A text that is equal for two jobs exactly if every worker that fits one fits the other, equally well.
 * The scheduler uses it to look at a thousand alike jobs once.
 */
export function placementKey(definition: JobDefinition): string {
  const { resources, selector } = definition;
  const labels = Object.keys(selector)
    .toSorted()
    .map((key) => [key, selector[key]]);
  const plain = [resources.cpuMillis, resources.memoryBytes, resources.diskBytes, resources.gpu, labels];
  const { selectorExpressions, tolerations, capabilities, preferences } = definition;
  const more = [selectorExpressions, tolerations, capabilities, preferences];
  return JSON.stringify(more.some((list) => list.length > 0) ? [...plain, ...more] : plain);
}
