/**
 * Shares starts between queues by their weights: stride scheduling.
 *
 * Each queue has a pass, which grows by 1/weight with each start; the queue with the lowest pass is
 * next. So over any stretch in which two queues wait, their starts are as their weights, and neither
 * is ever more than one start off.
 */

/** A queue in which jobs wait that may start. */
export interface Share {
  name: string;
  weight: number;
  pass: number;
}

/**
 * The passes with which these queues go on.
 *
 * A queue that was always among the waiting is never below the pass that another one had before its
 * last start: it would have been served instead. One that is below has been away, or had nothing that
 * fits, and is raised to there: it neither hoards starts nor is it behind anybody.
 */
export function withoutHoarding(shares: readonly Share[]): Share[] {
  const floor = Math.max(0, ...shares.map((share) => share.pass - stride(share)));
  return shares.map((share) => ({ ...share, pass: Math.max(share.pass, floor) }));
}

/** The queue whose turn it is: the lowest pass, then the name; null if there is none. */
export function nextShare<S extends Share>(shares: Iterable<S>): S | null {
  let next: S | null = null;
  for (const share of shares) {
    if (next === null || share.pass < next.pass || (share.pass === next.pass && share.name < next.name)) {
      next = share;
    }
  }
  return next;
}

/** By how much the pass of a queue grows with one start. */
export function stride({ weight }: Pick<Share, "weight">): number {
  return 1 / Math.max(1, weight);
}
