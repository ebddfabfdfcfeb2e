import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  formatRequirement,
  fulfils,
  LABEL_OPERATORS,
  parseSelector,
  preferenceProblem,
  requirementProblem,
  TAINT_EFFECTS,
  tolerates,
  tolerationProblem,
  type LabelOperator,
  type LabelRequirement,
  type Toleration,
} from "./labels.ts";

const requirement = (key: string, operator: LabelOperator, ...values: string[]): LabelRequirement => {
  return { key, operator, values };
};

test("each operator is fulfilled by exactly the labels that it says", () => {
  const labels = { os: "linux", cores: "8", name: "x8" };
  const expected: [LabelRequirement, boolean][] = [
    [requirement("os", "in", "mac", "linux"), true],
    [requirement("os", "in", "mac"), false],
    [requirement("gpu", "in", "a100"), false],
    [requirement("os", "not_in", "mac"), true],
    [requirement("os", "not_in", "linux"), false],
    [requirement("gpu", "not_in", "a100"), true],
    [requirement("os", "exists"), true],
    [requirement("gpu", "exists"), false],
    [requirement("os", "not_exists"), false],
    [requirement("gpu", "not_exists"), true],
    [requirement("cores", "gt", "7"), true],
    [requirement("cores", "gt", "8"), false],
    [requirement("cores", "lt", "9"), true],
    [requirement("cores", "lt", "8"), false],
    [requirement("name", "gt", "7"), false],
    [requirement("name", "lt", "9"), false],
    [requirement("gpu", "gt", "0"), false],
    [requirement("toString", "exists"), false],
  ];
  for (const [asked, isFulfilled] of expected) {
    assert.equal(fulfils(labels, asked), isFulfilled, formatRequirement(asked));
  }
});

test("a toleration accepts its taint, and no other key, value or effect", () => {
  const taint = { key: "gpu", value: "a100", effect: "NoSchedule" } as const;
  const base: Toleration = { key: "gpu", operator: "equal", value: "a100", effect: "NoSchedule" };
  const expected: [Partial<Toleration>, boolean][] = [
    [{}, true],
    [{ value: "h100" }, false],
    [{ key: "spot" }, false],
    [{ effect: "NoExecute" }, false],
    [{ effect: null }, true],
    [{ operator: "exists", value: "" }, true],
    [{ key: "", operator: "exists", value: "" }, true],
    [{ key: "", operator: "exists", value: "", effect: "NoExecute" }, false],
    [{ key: "", value: "a100" }, false],
  ];
  for (const [change, isTolerated] of expected) {
    assert.equal(tolerates([{ ...base, ...change }], taint), isTolerated, JSON.stringify(change));
  }
  assert.equal(tolerates([], taint), false);
  assert.equal(tolerates([{ ...base, key: "other" }, base], taint), true);
});

test("a selector is read in each of its forms", () => {
  assert.deepEqual(parseSelector(""), { selector: {}, expressions: [] });
  assert.deepEqual(
    parseSelector(
      'os=linux, os!=mac,zone in (a, b),zone notin (c), gpu,!spot , cores>4,cores < 8,note="a,b"',
    ),
    {
      selector: { os: "linux", note: "a,b" },
      expressions: [
        requirement("os", "not_in", "mac"),
        requirement("zone", "in", "a", "b"),
        requirement("zone", "not_in", "c"),
        requirement("gpu", "exists"),
        requirement("spot", "not_exists"),
        requirement("cores", "gt", "4"),
        requirement("cores", "lt", "8"),
      ],
    },
  );
  assert.deepEqual(parseSelector("constructor=x,os=linux,os=linux,empty="), {
    selector: { constructor: "x", os: "linux", empty: "" },
    expressions: [],
  });
});

test("a selector that cannot be read says where, why and what to write", () => {
  const expected: [string, RegExp][] = [
    ["os=linux,", /^column 10: a condition is missing; write os=linux/],
    ["os=linux, =x", /^column 11: "=x" begins with no label/],
    ["os=linux,os=mac", /^column 10: no worker has both os=linux and os=mac; write os in \(linux,mac\)/],
    ["zone in a", /^column 1: .*write zone in \(a,b\)/],
    ["zone in ()", /^column 1: in needs at least one value/],
    ["cores>=4", /^column 1: >= is not known; write cores>3/],
    ["cores<=x", /^column 1: <= is not known; write cores<NUMBER/],
    ["cores>many", /^column 1: gt compares with a whole number, and "many" is none/],
    ["!gpu=a", /^column 1: .*write !gpu or gpu!=VALUE/],
    ["gpu ~ a", /^column 1: "~ a" after gpu is no comparison; write/],
    ["-x=a", /^column 1: "-x" is not the name of a label/],
    ['os="linux', /^column 1: "linux is no value; write it in double quotes/],
    ["os=a)", /^column 1: a\) is no value/],
  ];
  for (const [text, problem] of expected) {
    const read = parseSelector(text);
    assert.ok(typeof read === "string" && problem.test(read), `${text}: ${JSON.stringify(read)}`);
  }
});

test("what formatRequirement writes, parseSelector reads back", () => {
  const key = fc.stringMatching(/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,10}[A-Za-z0-9])?$/);
  const value = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc.constantFrom("", " a", 'a"b', "a,b", "\\", "(", '\\"'),
  );
  const any = fc
    .record({ key, operator: fc.constantFrom(...LABEL_OPERATORS), values: fc.array(value, { maxLength: 3 }) })
    .map((asked): LabelRequirement => {
      if (asked.operator.endsWith("exists")) return { ...asked, values: [] };
      const isNumeric = asked.operator === "gt" || asked.operator === "lt";
      return { ...asked, values: isNumeric ? [String(asked.values.length - 1)] : asked.values };
    })
    .filter((asked) => requirementProblem(asked) === null);
  fc.assert(
    fc.property(fc.array(any, { maxLength: 4 }), (expressions) => {
      const text = expressions.map(formatRequirement).join(", ");
      assert.deepEqual(parseSelector(text), { selector: {}, expressions }, text);
    }),
    { numRuns: 1_000 },
  );
});

test("any text is either read or answered with a column, and never throws", () => {
  const piece = fc.oneof(
    fc.constantFrom(...'()",=!<> ', "in", "a", "notin", "\\"),
    fc.string({ maxLength: 2 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const read = parseSelector(pieces.join(""));
      if (typeof read === "string") assert.match(read, /^column \d+: /);
      else for (const asked of read.expressions) assert.equal(requirementProblem(asked), null);
    }),
    { numRuns: 2_000 },
  );
});

test("conditions and tolerations that mean nothing are named", () => {
  const problems = [
    requirementProblem(requirement("os", "in")),
    requirementProblem(requirement("os", "exists", "x")),
    requirementProblem(requirement("os", "gt", "1", "2")),
    requirementProblem(requirement("os", "lt", "1.5")),
    requirementProblem(requirement("", "exists")),
    requirementProblem(requirement("a".repeat(129), "exists")),
    requirementProblem(requirement("os", "in", "a\nb")),
    tolerationProblem({ key: "", operator: "equal", value: "x", effect: null }),
    tolerationProblem({ key: "a", operator: "exists", value: "x", effect: null }),
  ];
  const zone = requirement("zone", "in", "a");
  problems.push(
    preferenceProblem({ weight: 1, workerLabels: [], jobLabels: {} }),
    preferenceProblem({ weight: 101, workerLabels: [zone], jobLabels: {} }),
    preferenceProblem({ weight: 1, workerLabels: [zone, requirement("zone", "in")], jobLabels: {} }),
    preferenceProblem({ weight: 1, workerLabels: [], jobLabels: { "-": "" } }),
  );
  assert.equal(preferenceProblem({ weight: -100, workerLabels: [zone], jobLabels: { app: "web" } }), null);
  for (const problem of problems) assert.ok(problem !== null && problem.length > 10);
  assert.equal(requirementProblem(requirement("cores", "gt", "-1")), null);
  for (const effect of [...TAINT_EFFECTS, null]) {
    assert.equal(tolerationProblem({ key: "", operator: "exists", value: "", effect }), null);
  }
});
