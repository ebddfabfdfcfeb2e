/**
 * What is known of attempts in memory: at most one `AttemptLog` for each, so that two callers never
 * write the same file by different counts.
 */

import type { SealedLog } from "../../../storage/store.ts";
import { AppendLine } from "./append-line.ts";
import type { AttemptLog } from "./attempt-log.ts";

/** Attempts that are kept; those that are needed are kept beyond it. */
const MAX_ATTEMPTS = 10_000;
/** Slots that one call looks at to find some that may be forgotten. */
const MAX_LOOKS = 16;

export interface AttemptSlot {
  ready: Promise<AttemptLog>;
  /** Null while it is being loaded. */
  loaded: AttemptLog | null;
  /** Calls under way that need this slot to stay the only one. */
  users: number;
  line: AppendLine;
  finishing: Promise<SealedLog> | null;
}

export class AttemptSlots {
  readonly #load: (attemptId: string) => Promise<AttemptLog>;
  /** Least recently used first. */
  readonly #slots = new Map<string, AttemptSlot>();

  /** `load` is called when an attempt is not in memory; if it rejects, again with the next use. */
  constructor(load: (attemptId: string) => Promise<AttemptLog>) {
    this.#load = load;
  }

  async use<T>(attemptId: string, work: (attempt: AttemptLog, slot: AttemptSlot) => Promise<T>): Promise<T> {
    const slot = this.hold(attemptId);
    try {
      return await work(await slot.ready, slot);
    } finally {
      slot.users -= 1;
    }
  }

  /** The caller must take itself off `users` in the end. */
  hold(attemptId: string): AttemptSlot {
    const slot = this.#slots.get(attemptId) ?? this.#begin(attemptId);
    this.#slots.delete(attemptId);
    this.#slots.set(attemptId, slot);
    slot.users += 1;
    if (this.#slots.size > MAX_ATTEMPTS) this.#forgetSome();
    return slot;
  }

  loaded(attemptId: string): AttemptLog | null {
    return this.#slots.get(attemptId)?.loaded ?? null;
  }

  all(): AttemptSlot[] {
    return [...this.#slots.values()];
  }

  #begin(attemptId: string): AttemptSlot {
    const ready = this.#load(attemptId);
    const line = new AppendLine();
    const slot: AttemptSlot = { ready, loaded: null, users: 0, line, finishing: null };
    ready.then(
      (attempt) => (slot.loaded = attempt),
      () => {
        // Those who wait for it see the failure.
        if (this.#slots.get(attemptId) === slot) this.#slots.delete(attemptId);
      },
    );
    return slot;
  }

  #forgetSome(): void {
    let looks = MAX_LOOKS;
    for (const [attemptId, slot] of this.#slots) {
      this.#slots.delete(attemptId);
      if (isNeeded(slot)) this.#slots.set(attemptId, slot);
      looks -= 1;
      if (looks === 0 || this.#slots.size <= MAX_ATTEMPTS) return;
    }
  }
}

/** A raw log with bytes is always needed: to read it in anew would mean to walk over all of it. */
function isNeeded({ users, loaded }: AttemptSlot): boolean {
  if (users > 0 || !loaded || !loaded.isIdle) return true;
  return loaded.durable > 0 && !loaded.sealed;
}
