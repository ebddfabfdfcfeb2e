import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { withoutComments, withoutCommentsAndTexts } from "./source-text.ts";

test("comments and texts become blanks, and code stays where it was", () => {
  const known: [string, string][] = [
    ["a // b\nc", "a     \nc"],
    ["a /* b\n */ c", "a     \n    c"],
    ['f("// no", x)', "f(       , x)"],
    ["f('it\\'s', x)", "f(       , x)"],
    ["a / b; /* c */ d", "a / b;         d"],
    ['x = /[/"]/g; y', "x =        ; y"],
    ["`a ${b + `c ${d}`} e` f", "     b +      d    e` f".replace("  e`", "    ")],
    ["`${{ a: 1 }.a}` b", "   { a: 1 }.a   b"],
    ["'open\nb", "'open\nb"],
    ["/* open", "       "],
  ];
  for (const [source, expected] of known) assert.equal(withoutCommentsAndTexts(source), expected, source);
});

test("texts can be kept", () => {
  assert.equal(withoutComments('f("// no"); // yes'), 'f("// no");       ');
});

test("any text at all keeps its length and its line breaks", () => {
  const pieces = fc.constantFrom(
    '"',
    "'",
    "`",
    "${",
    "}",
    "{",
    "//",
    "/*",
    "*/",
    "/",
    "\\",
    "\n",
    "a",
    " ",
    "=",
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 40 }), (parts) => {
      const source = parts.join("");
      const result = withoutCommentsAndTexts(source);
      assert.equal(result.length, source.length);
      assert.deepEqual(lineBreaks(result), lineBreaks(source));
    }),
    { numRuns: 2_000 },
  );
});

function lineBreaks(text: string): number[] {
  return [...text.matchAll(/\n/g)].map(({ index }) => index);
}
