/**
 * Reads YAML or JSON text into plain values that know their places in the text.
 *
 * A file is a stream of values: YAML documents, JSON Lines, or one JSON value. Files come from
 * strangers, so everything that costs more than the text is long has a limit.
 */

import {
  Composer,
  Lexer,
  LineCounter,
  Parser,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type Document,
  type Node,
} from "yaml";
import { errorMessage } from "../base/errors.ts";
import { JsonScanError, scanJson } from "./json-scan.ts";
import { MAX_PROBLEMS, type Problem, type ValuePath } from "./problem.ts";

export interface Position {
  line: number;
  column: number;
}

export interface SourceValue {
  value: unknown;
  /** The place of the value at `path`, or of the nearest one around it that is in the text. */
  locate(path: ValuePath): Position;
  /** The place of the key that ends `path`. */
  locateKey(path: ValuePath): Position;
}

export type SourceResult = { ok: true; values: SourceValue[] } | { ok: false; problems: Problem[] };

/** Deeper nesting is refused: the YAML composer is recursive, and a job needs about six levels. */
const MAX_NESTING = 64;
/** Uses of one anchor, counted through nested ones: stops files that expand exponentially. */
const MAX_ALIAS_COUNT = 1_000;

export function readSourceValues(text: string): SourceResult {
  if (/^\s*[{[]/.test(text)) {
    const json = readJson(text);
    if (json) return json;
  }
  return readYaml(text, 0);
}

// ── JSON, the fast way ─────────────────────────────────────────────────────────────────────────

/** Null if the text is not plainly JSON: then the YAML reader, which knows places, explains it. */
function readJson(text: string): SourceResult | null {
  const whole = parseJson(text);
  if (whole) return { ok: true, values: [{ value: whole.value, ...lazyPlaces(text, 0) }] };
  const lines = text.split("\n");
  const first = lines.find((line) => line.trim() !== "");
  if (first === undefined || lines.length < 2 || !parseJson(first)) return null;
  return readJsonLines(lines);
}

function readJsonLines(lines: readonly string[]): SourceResult {
  const values: SourceValue[] = [];
  const problems: Problem[] = [];
  for (const [index, line] of lines.entries()) {
    if (line.trim() === "") continue;
    const parsed = parseJson(line);
    if (parsed) {
      values.push({ value: parsed.value, ...lazyPlaces(line, index) });
      continue;
    }
    const explained = readYaml(line, index);
    if (explained.ok) values.push(...explained.values);
    else problems.push(...explained.problems);
    if (problems.length >= MAX_PROBLEMS) break;
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, values };
}

function parseJson(text: string): { value: unknown } | null {
  try {
    // JSON.parse keeps the last of two equal keys and says nothing; the scan notices.
    scanJson(text, MAX_NESTING);
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof JsonScanError) return null;
    throw error;
  }
}

/** Places are needed only for problems, so the YAML reader, ten times slower, runs only then. */
function lazyPlaces(text: string, lineOffset: number): Pick<SourceValue, "locate" | "locateKey"> {
  let places: Pick<SourceValue, "locate" | "locateKey"> | null = null;
  const load = () => {
    const read = readYaml(text, lineOffset);
    const start = { line: lineOffset + 1, column: 1 };
    places ??= (read.ok ? read.values[0] : undefined) ?? { locate: () => start, locateKey: () => start };
    return places;
  };
  return {
    locate: (path) => (places ?? load()).locate(path),
    locateKey: (path) => (places ?? load()).locateKey(path),
  };
}

// ── YAML ───────────────────────────────────────────────────────────────────────────────────────

function readYaml(text: string, lineOffset: number): SourceResult {
  const lines = new LineCounter();
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(Math.min(offset, text.length));
    return { line: Math.max(1, line) + lineOffset, column: Math.max(1, col) };
  };
  let documents: Document.Parsed[];
  try {
    documents = composeWithinDepth(text, lines);
  } catch (error) {
    if (!(error instanceof TooDeepError)) throw error;
    const message = `nested more than ${MAX_NESTING} levels deep`;
    return { ok: false, problems: [{ path: "", ...at(error.offset), message, hint: "" }] };
  }
  const problems = documents
    .flatMap((document) => [...document.errors, ...document.warnings.filter(isUnknownTag)])
    .map((error) => {
      const message = error.message.split("\n")[0] ?? "not valid YAML";
      return {
        path: "",
        ...at(error.pos[0]),
        message: `not valid YAML: ${message}`,
        hint: yamlHint(error.code),
      };
    });
  if (problems.length > 0) return { ok: false, problems: problems.slice(0, MAX_PROBLEMS) };
  return toValues(documents, at);
}

/** YAML would take `!spot` for an empty text with a tag, and a condition would be lost without a word. */
function isUnknownTag({ code }: { code: string }): boolean {
  return code === "TAG_RESOLVE_FAILED";
}

function yamlHint(code: string): string {
  if (code === "TAG_RESOLVE_FAILED") return "put a text that begins with ! in quotes";

  if (code === "TAB_AS_INDENT") return "indent with spaces";
  if (code === "DUPLICATE_KEY") return "remove or rename one of them";
  return "";
}

class TooDeepError extends Error {
  readonly offset: number;
  constructor(offset: number) {
    super("nested too deeply");
    this.offset = offset;
  }
}

/** The parser's own stack is a list, so the depth can be checked before anything recursive runs. */
function composeWithinDepth(text: string, lines: LineCounter): Document.Parsed[] {
  const parser = new Parser(lines.addNewLine);
  const composer = new Composer({
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    logLevel: "silent",
  });
  const documents: Document.Parsed[] = [];
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    for (const token of parser.next(lexeme)) documents.push(...composer.next(token));
    if (parser.stack.length > MAX_NESTING + 2) throw new TooDeepError(parser.offset);
  }
  for (const token of parser.end()) documents.push(...composer.next(token));
  documents.push(...composer.end(false, text.length));
  return documents;
}

function toValues(documents: readonly Document.Parsed[], at: (offset: number) => Position): SourceResult {
  const values: SourceValue[] = [];
  for (const document of documents) {
    if (document.contents === null || isEmpty(document.contents)) continue;
    keepTexts(document.contents);
    try {
      values.push({
        value: document.toJS({ maxAliasCount: MAX_ALIAS_COUNT }) as unknown,
        ...places(document, at),
      });
    } catch (error) {
      const place = at(document.range?.[0] ?? 0);
      const tooMany = errorMessage(error).startsWith("Excessive alias count");
      const message = tooMany
        ? "aliases expand to too many values"
        : `not valid YAML: ${errorMessage(error)}`;
      return {
        ok: false,
        problems: [{ path: "", ...place, message, hint: tooMany ? "write the values out" : "" }],
      };
    }
  }
  return { ok: true, values };
}

function isEmpty(node: Node): boolean {
  return isScalar(node) && node.value === null && (node.source ?? "") === "";
}

/** Keys whose values are text: `VERSION: 1.10` there means the four letters, not the number 1.1. */
const TEXT_COLLECTIONS = new Set(["env", "labels", "jobLabels", "selector", "command", "run"]);

function keepTexts(node: unknown): void {
  if (isSeq(node)) {
    for (const item of node.items) keepTexts(item);
  } else if (isMap(node)) {
    for (const { key, value } of node.items) {
      const isText = isScalar(key) && TEXT_COLLECTIONS.has(String(key.value));
      if (isText && isMap(value)) for (const pair of value.items) keepText(pair.value);
      else if (isText && isSeq(value)) for (const item of value.items) keepText(item);
      else keepTexts(value);
    }
  }
}

function keepText(node: unknown): void {
  if (!isScalar(node) || typeof node.source !== "string") return;
  if (typeof node.value === "number" || typeof node.value === "boolean" || typeof node.value === "bigint") {
    node.value = node.source;
  }
}

function places(
  document: Document.Parsed,
  at: (offset: number) => Position,
): Pick<SourceValue, "locate" | "locateKey"> {
  const find = (path: ValuePath, wantKey: boolean): Position => {
    let node: unknown = document.contents;
    let offset = startOf(node) ?? 0;
    for (const [index, part] of path.entries()) {
      if (isAlias(node)) node = node.resolve(document);
      let next: unknown = null;
      if (isMap(node)) {
        const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
        if (!pair) break;
        const isWanted = wantKey && index === path.length - 1;
        offset = startOf(isWanted ? pair.key : pair.value) ?? startOf(pair.key) ?? offset;
        next = pair.value;
      } else if (isSeq(node)) {
        next = node.items[Number(part)];
        offset = startOf(next) ?? offset;
      } else {
        break;
      }
      node = next;
    }
    return at(offset);
  };
  return { locate: (path) => find(path, false), locateKey: (path) => find(path, true) };
}

function startOf(node: unknown): number | null {
  if (typeof node !== "object" || node === null || !("range" in node)) return null;
  return Array.isArray(node.range) && typeof node.range[0] === "number" ? node.range[0] : null;
}
