/**
 * SIGINT and SIGTERM, each press once.
 *
 * A terminal sends Ctrl-C to every process of the foreground, and wrappers such as npm pass it on
 * to their child as well, so that one press arrives twice within milliseconds. To take the second
 * for "at once, then" would leave a database and workers behind.
 */

import type { Clock } from "./clock.ts";

export type StopSignal = "SIGINT" | "SIGTERM";

/** Signals closer together than this are one; nobody presses twice so fast. */
const SAME_PRESS_MS = 100;

/** Calls `listener` for each signal until the returned function is called. */
export function listenForSignals(clock: Clock, listener: (signal: StopSignal) => void): () => void {
  let lastMs = -Infinity;
  const onSignal = (signal: StopSignal): void => {
    const nowMs = clock.monotonicMs();
    const isEcho = nowMs - lastMs < SAME_PRESS_MS;
    lastMs = nowMs;
    if (!isEcho) listener(signal);
  };
  const signals: StopSignal[] = ["SIGINT", "SIGTERM"];
  for (const signal of signals) process.on(signal, onSignal);
  return () => {
    for (const signal of signals) process.off(signal, onSignal);
  };
}
