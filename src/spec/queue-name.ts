/** What a queue may be called. The rule is that of the API (proto/hodei/v1/jobs.proto). */

export const MAX_QUEUE_NAME_CHARS = 128;
export const QUEUE_NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
export const QUEUE_NAME_RULE = "must be letters, digits and . _ - and begin and end with a letter or digit";

/** What is wrong with the name; null if nothing is. */
export function queueNameProblem(name: string): string | null {
  if (name.length > MAX_QUEUE_NAME_CHARS) return `must have ${MAX_QUEUE_NAME_CHARS} characters at most`;
  return QUEUE_NAME.test(name) ? null : `${JSON.stringify(name)} ${QUEUE_NAME_RULE}`;
}
