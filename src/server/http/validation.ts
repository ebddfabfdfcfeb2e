/**
 * Holds every request against the constraints of the proto files before a handler sees it.
 *
 * A refusal is `invalid_argument`, its message names each field by its path
 * (`definition.steps[2].command: …`), and the same comes as a `buf.validate.Violations` detail for
 * programs. Both stop after `MAX_VIOLATIONS`: they travel in headers, and a batch of 10,000 jobs
 * can hold that many mistakes.
 */

import { isMessage, type Message, type MessageValidType } from "@bufbuild/protobuf";
import { createValidator, ValidationError, type Validator, type Violation } from "@bufbuild/protovalidate";
import type { Interceptor } from "@connectrpc/connect";
import { createValidateInterceptor } from "@connectrpc/validate";
import { WorkerStreamRequestSchema } from "../../protocol/gen/hodei/v1/workers_pb.ts";

const MAX_VIOLATIONS = 10;
/** A path may hold a map key of the request, as long as its author liked. */
const MAX_VIOLATION_CHARACTERS = 200;

export function validationInterceptor(): Interceptor {
  return createValidateInterceptor({ validator: requestValidator() });
}

/** Like the library's, with bounded and complete messages. A broken constraint is our fault: it throws. */
export function requestValidator(): Validator {
  const validator = createValidator({ regexMatch: cachedRegexMatch() });
  return {
    validate(schema, message) {
      if (isLogBatch(message)) {
        return { kind: "valid", message: message as MessageValidType<typeof schema>, error: undefined, violations: undefined };
      }
      const result = validator.validate(schema, message);
      if (result.kind === "error") {
        throw new Error(`check ${schema.typeName}: ${result.error.message}`, { cause: result.error });
      }
      if (result.kind === "valid") return result;
      const violations = result.violations.slice(0, MAX_VIOLATIONS);
      const error = new ValidationError(violations);
      error.message = describe(error, result.violations.length);
      return { ...result, violations: violations.filter(isShort), error };
    },
  };
}

/**
 * Log comes 3,000 times a second, and the log store checks place, size and attempt of each piece
 * by itself.
 */
function isLogBatch(message: Message): boolean {
  return isMessage(message, WorkerStreamRequestSchema) && message.message.case === "logBatch";
}

function isShort(violation: Violation): boolean {
  return violation.toString().length <= MAX_VIOLATION_CHARACTERS;
}

function describe(error: ValidationError, total: number): string {
  const lines = error.violations.map((violation) => {
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
