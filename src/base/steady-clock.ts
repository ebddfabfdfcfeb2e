/**
 * The time that leases and deadlines are counted in: the system's time when the process began, and
 * from there on the time that has really passed.
 *
 * An administrator or NTP may set the system clock an hour ahead while jobs run. Read directly, every
 * lease would end at that moment, and jobs would be given to a second worker while the first still
 * runs them. So a step is not followed until the next start; it is logged, because until then the
 * times that people see differ from those of other machines. Sleep of the machine does count.
 */

import { bootClock } from "./boot-clock.ts";
import type { Clock } from "./clock.ts";
import type { Logger } from "./log.ts";

/** NTP removes smaller differences by and by, which no clock here notices. */
const STEP_MS = 5_000;
/** Reading the time since boot costs a file; it is only needed to notice that the machine slept. */
const LOOK_INTERVAL_MS = 1_000;

export function steadyClock(system: Clock, log: Logger, bootNowMs = bootClock()): Clock {
  const startMs = system.nowMs() - system.monotonicMs();
  const awakeMs = (): number => bootNowMs() - system.monotonicMs();
  const firstAwakeMs = awakeMs();
  let sleptMs = 0;
  let knownStepMs = 0;
  let nextLookMs = system.monotonicMs() + LOOK_INTERVAL_MS;

  const look = (): void => {
    const slept = awakeMs() - firstAwakeMs;
    if (slept - sleptMs > LOOK_INTERVAL_MS) sleptMs = slept;
    const stepMs = system.nowMs() - (startMs + sleptMs + system.monotonicMs());
    if (Math.abs(stepMs - knownStepMs) < STEP_MS) return;
    knownStepMs = stepMs;
    log.warn(
      { stepMs: Math.round(stepMs) },
      "the system clock was set; this process follows at its next start",
    );
  };
  return {
    ...system,
    nowMs() {
      const passedMs = system.monotonicMs();
      if (passedMs >= nextLookMs) {
        nextLookMs = passedMs + LOOK_INTERVAL_MS;
        look();
      }
      return Math.round(startMs + sleptMs + passedMs);
    },
  };
}
