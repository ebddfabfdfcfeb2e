/** What JSON.parse does not tell about a text: keys that stand twice, and how deep it nests. */

export class JsonScanError extends Error {}

/**
 * Refuses a text that nests too deeply or that has two equal keys in one object. Anything else
 * that is wrong is left for JSON.parse to find; text that is not JSON gives no useful answer.
 *
 * @throws JsonScanError
 */
export function scanJson(text: string, maxNesting: number): void {
  /** The keys of each open object; null for an open array. */
  const open: (Set<string> | null)[] = [];
  let key: string | null = null;
  for (let index = 0; index < text.length; index += 1) {
    switch (text.charCodeAt(index)) {
      case QUOTE: {
        const end = stringEnd(text, index);
        key = text.slice(index + 1, end);
        index = end;
        break;
      }
      case COLON:
        addKey(open.at(-1) ?? null, key);
        break;
      case OPEN_BRACE:
      case OPEN_BRACKET:
        if (open.length >= maxNesting) throw new JsonScanError("nested too deeply");
        open.push(text.charCodeAt(index) === OPEN_BRACE ? new Set() : null);
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        open.pop();
        break;
    }
  }
}

const QUOTE = 34;
const COLON = 58;
const BACKSLASH = 92;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;

function stringEnd(text: string, start: number): number {
  for (let index = start + 1; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code === BACKSLASH) index += 1;
    else if (code === QUOTE) return index;
  }
  return text.length;
}

/** Keys are compared as written unless they have escapes: `"\u0061"` and `"a"` are the same key. */
function addKey(keys: Set<string> | null, written: string | null): void {
  if (keys === null || written === null) return;
  const key = written.includes("\\") ? unescape(written) : written;
  if (keys.has(key)) throw new JsonScanError("duplicate key");
  keys.add(key);
}

function unescape(written: string): string {
  try {
    return JSON.parse(`"${written}"`) as string;
  } catch {
    // Not a JSON string; JSON.parse of the whole text will say so.
    return written;
  }
}
