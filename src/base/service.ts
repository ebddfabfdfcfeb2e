/** Something that runs until it is stopped. */
export interface Service {
  /** Resolves when nothing of it is left running. May be called twice. */
  stop(): Promise<void>;
}

/** Stops services in the given order, also after one has failed, and reports the first failure. */
export async function stopAll(services: readonly Service[]): Promise<void> {
  const failures: unknown[] = [];
  for (const service of services) {
    try {
      await service.stop();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
