/**
 * Blanks out parts of TypeScript source, for the test of the house rules. Every character that
 * goes becomes a space and line breaks stay, so places in the result are places in the source.
 *
 * It is no parser: it knows comments, quoted texts, templates with their `${…}`, and regular
 * expressions where a value can begin. That is enough for code that has passed the formatter.
 */

/** The source without comments. */
export function withoutComments(source: string): string {
  return blank(source, new Set<TokenKind>(["comment"]));
}

/** The source without comments, quoted texts, templates (their `${…}` stay) and regular expressions. */
export function withoutCommentsAndTexts(source: string): string {
  return blank(source, new Set<TokenKind>(["comment", "text"]));
}

type TokenKind = "comment" | "text";

function blank(source: string, kinds: ReadonlySet<TokenKind>): string {
  let result = "";
  let position = 0;
  for (const { kind, start, end } of tokens(source)) {
    result += source.slice(position, start);
    const token = source.slice(start, end);
    result += kinds.has(kind) ? token.replace(/[^\n]/g, " ") : token;
    position = end;
  }
  return result + source.slice(position);
}

const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/y;
const QUOTED = /"(?:[^"\\\n]|\\[\s\S])*"|'(?:[^'\\\n]|\\[\s\S])*'/y;
const REGULAR_EXPRESSION = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
/** A piece of a template, up to its end or to the next `${`. */
const TEMPLATE_PIECE = /(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{|$)/y;

function* tokens(source: string): Generator<{ kind: TokenKind; start: number; end: number }> {
  // For each `${` that is open: how many `{` inside it are.
  const open: number[] = [];
  let position = 0;
  while (position < source.length) {
    const character = source.charAt(position);
    const match = matchToken(source, position);
    if (match) {
      yield { kind: match.kind, start: position, end: match.end };
      position = match.end;
    } else if (character === "`" || (character === "}" && open.at(-1) === 0)) {
      if (character === "}") open.pop();
      const end = matchAt(TEMPLATE_PIECE, source, position + 1) ?? source.length;
      if (source.slice(end - 2, end) === "${") open.push(0);
      yield { kind: "text", start: position, end };
      position = end;
    } else {
      const last = open.length - 1;
      if (last >= 0 && character === "{") open[last] = (open[last] ?? 0) + 1;
      if (last >= 0 && character === "}") open[last] = (open[last] ?? 0) - 1;
      position += 1;
    }
  }
}

function matchToken(source: string, position: number): { kind: TokenKind; end: number } | null {
  const comment = matchAt(COMMENT, source, position);
  if (comment !== null) return { kind: "comment", end: comment };
  const text = matchAt(QUOTED, source, position);
  if (text !== null) return { kind: "text", end: text };
  if (source.charAt(position) !== "/" || !canValueBegin(source, position)) return null;
  const expression = matchAt(REGULAR_EXPRESSION, source, position);
  return expression === null ? null : { kind: "text", end: expression };
}

/** Else a slash is a division. */
function canValueBegin(source: string, position: number): boolean {
  const before = source.slice(Math.max(0, position - 20), position).trimEnd();
  return before === "" || /[(,=:[!&|?{};+\-*%<>~^]$|\b(return|typeof|case|in|of|yield|await)$/.test(before);
}

function matchAt(expression: RegExp, source: string, position: number): number | null {
  expression.lastIndex = position;
  return expression.test(source) ? expression.lastIndex : null;
}
