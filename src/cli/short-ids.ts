/** Beginnings of ids that a person can type. */

/** Of a UUIDv7: the whole time stamp, so only jobs of the same millisecond begin alike. */
const SHORT_ID_CHARS = 13;

/** The first 13 characters where no other of these ids begins like that, else the whole id. */
export function shortIds(ids: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const id of ids)
    counts.set(id.slice(0, SHORT_ID_CHARS), (counts.get(id.slice(0, SHORT_ID_CHARS)) ?? 0) + 1);
  return ids.map((id) => (counts.get(id.slice(0, SHORT_ID_CHARS)) === 1 ? id.slice(0, SHORT_ID_CHARS) : id));
}
