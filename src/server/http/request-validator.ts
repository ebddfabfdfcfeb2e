/**
 * Explains what is wrong with a request, in words and as a `buf.validate.Violations` detail for
 * programs. Both stop after `MAX_VIOLATIONS`: they travel in headers, and a batch of 10,000 jobs
 * can hold that many mistakes.
 */

import type { DescMessage, Message } from "@bufbuild/protobuf";
import { createValidator, ValidationError, violationsToProto, type Violation } from "@bufbuild/protovalidate";
import { Code, ConnectError } from "@connectrpc/connect";

const MAX_VIOLATIONS = 10;
/** A path may hold a map key of the request, as long as its author liked. */
const MAX_VIOLATION_CHARACTERS = 200;

/** Null for a valid message. A broken constraint is our fault: it throws. */
export function createRefusalOf(): (type: DescMessage, message: Message) => ConnectError | null {
  const validator = createValidator({ regexMatch: cachedRegexMatch() });
  return (type, message) => {
    const result = validator.validate(type, message);
    if (result.kind === "error") {
      throw new Error(`check ${type.typeName}: ${result.error.message}`, { cause: result.error });
    }
    if (result.kind === "valid") return null;
    const violations = result.violations.slice(0, MAX_VIOLATIONS);
    const text = describe(violations, result.violations.length);
    const [value, desc] = violationsToProto(violations.filter(isShort));
    const detail = { desc, value };
    return new ConnectError(text, Code.InvalidArgument, undefined, [detail], new ValidationError(violations));
  };
}

function isShort(violation: Violation): boolean {
  return violation.toString().length <= MAX_VIOLATION_CHARACTERS;
}

function describe(violations: readonly Violation[], total: number): string {
  const lines = violations.map((violation) => {
    const line = violation.toString().replace(/ \[[^\]]*\]$/, "");
    return line.length > MAX_VIOLATION_CHARACTERS ? `${line.slice(0, MAX_VIOLATION_CHARACTERS)}…` : line;
  });
  if (total > lines.length) lines.push(`and ${total - lines.length} more`);
  return lines.join("; ");
}

/**
 * The patterns are ours, few, and written so that they match in linear time, which lets them run on
 * the engine of V8: the RE2 in JavaScript of the library takes some 100 times longer on a script of
 * a megabyte.
 */
function cachedRegexMatch(): (pattern: string, text: string) => boolean {
  const compiled = new Map<string, RegExp>();
  return (pattern, text) => {
    let regex = compiled.get(pattern);
    if (!regex) compiled.set(pattern, (regex = new RegExp(pattern, "u")));
    return regex.test(text);
  };
}
