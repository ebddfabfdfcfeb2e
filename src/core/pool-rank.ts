/** Which of several pools that fit a job alike makes the worker. */

export interface RankedPool {
  name: string;
  isDegraded: boolean;
  costPerHour: number;
  /** Median of its last starts; null before the first. */
  startTimeMs: number | null;
}

/**
 * Ranks from 0, by name: what is well goes before what is not, then the cheaper one, then the one that
 * starts faster, then the one that stands first in `pools`. A pool of which no start is known yet is
 * taken to be slower than any, so that one is not left for what may be worse.
 */
export function rankPools(pools: readonly RankedPool[]): Map<string, number> {
  const order = pools.toSorted(
    (a, b) =>
      Number(a.isDegraded) - Number(b.isDegraded) ||
      a.costPerHour - b.costPerHour ||
      startTimeOrder(a) - startTimeOrder(b),
  );
  return new Map(order.map(({ name }, rank) => [name, rank]));
}

function startTimeOrder({ startTimeMs }: RankedPool): number {
  return startTimeMs ?? Number.MAX_SAFE_INTEGER;
}
