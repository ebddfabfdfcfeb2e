/**
 * Says of a message, in a microsecond, that it keeps every constraint of its proto file.
 *
 * The library for these constraints compiles most of them to CEL, which costs 0.1 s at the first
 * call and more than everything else in each later one. What is here covers the few constraints
 * that our files use, and errs on one side only: true is certain, false means "ask the library",
 * which also knows how to explain. A constraint that is not in the tables below makes every message
 * of its type a question for the library.
 */

import {
  getOption,
  isFieldSet,
  ScalarType,
  type DescField,
  type DescMessage,
  type Message,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  field as fieldOption,
  FieldRulesSchema,
  message as messageOption,
  oneof as oneofOption,
  type FieldRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

type Check = (value: never) => boolean;
type Fields = Record<string, unknown>;

/** Whether `message` is certainly valid. Plans are made once for each type of message. */
export function createSurelyValid(): (type: DescMessage, message: Message) => boolean {
  const plans = new Map<string, MessagePlan>();
  return (type, message) => planOf(type, plans).holds(message);
}

interface MessagePlan {
  holds(message: Fields): boolean;
}

type Plans = Map<string, MessagePlan>;

const NEVER: Check = () => false;

function planOf(type: DescMessage, plans: Plans): MessagePlan {
  const known = plans.get(type.typeName);
  if (known) return known;
  const checks: ((message: Fields) => boolean)[] = [];
  const plan: MessagePlan = { holds: (message) => checks.every((check) => check(message)) };
  // Before its fields are looked at, because a type may hold itself.
  plans.set(type.typeName, plan);
  checks.push(...messageChecks(type), ...oneofChecks(type));
  for (const field of type.fields) checks.push(...fieldChecks(field, plans));
  return plan;
}

function messageChecks(type: DescMessage): ((message: Fields) => boolean)[] {
  const rules = getOption(type, messageOption);
  if (rules.cel.length > 0 || rules.celExpression.length > 0 || rules.$unknown) return [() => false];
  return rules.oneof.map(({ fields: names, required }) => {
    const fields = type.fields.filter(({ name }) => names.includes(name));
    return (message) => {
      const count = fields.filter((field) => isFieldSet(message as unknown as Message, field)).length;
      return count <= 1 && (!required || count === 1);
    };
  });
}

function oneofChecks(type: DescMessage): ((message: Fields) => boolean)[] {
  const required = type.oneofs.filter((oneof) => getOption(oneof, oneofOption).required);
  return required.map(
    ({ localName }) =>
      (message) =>
        (message[localName] as { case?: string }).case !== undefined,
  );
}

/** The checks of one field, as checks of the message that holds it. */
function fieldChecks(field: DescField, plans: Plans): ((message: Fields) => boolean)[] {
  const rules = getOption(field, fieldOption);
  const checks: ((message: Fields) => boolean)[] = [];
  if (rules.required) checks.push((message) => isFieldSet(message as unknown as Message, field));
  const check = valueCheck(field, rules, plans);
  if (check === null) return checks;
  const { localName, oneof } = field;
  if (oneof) {
    checks.push((message) => {
      const chosen = message[oneof.localName] as { case?: string; value?: never };
      return chosen.case !== localName || check(chosen.value as never);
    });
  } else {
    checks.push((message) => {
      const value = message[localName];
      return value === undefined || check(value as never);
    });
  }
  return checks;
}

/** Null if nothing is demanded of the field's value. */
function valueCheck(field: DescField, rules: FieldRules, plans: Plans): Check | null {
  const own = ruleChecks(rules);
  if (field.fieldKind === "list") {
    const item = elementCheck(field.listKind === "message" ? field.message : null, itemRules(rules), plans);
    if (item) own.push((values: never[]) => values.every(item));
  } else if (field.fieldKind === "map") {
    const map = rules.type.case === "map" ? rules.type.value : null;
    // Keys that are no strings come as strings, too, and would be held against the wrong type.
    const key = map?.keys ? allOf(field.mapKey === ScalarType.STRING ? ruleChecks(map.keys) : [NEVER]) : null;
    const value = elementCheck(
      field.mapKind === "message" ? field.message : null,
      map?.values ?? null,
      plans,
    );
    if (key) own.push((entries: Fields) => Object.keys(entries).every((name) => key(name as never)));
    if (value) own.push((entries: Fields) => Object.values(entries).every((entry) => value(entry as never)));
  } else if (field.fieldKind === "enum") {
    if (rules.type.case === "enum" && rules.type.value.definedOnly) {
      own.push((value: number) => field.enum.value[value] !== undefined);
    }
  } else if (field.fieldKind === "message") {
    own.push(nested(field.message, plans));
  }
  if (own.length === 0) return null;
  return field.fieldKind === "list" ? knownIfEmpty(allOf(own)) : allOf(own);
}

/** Most lists of most messages are empty: that is checked once, here. */
function knownIfEmpty(check: Check): Check {
  const isEmptyValid = check([] as never);
  return (values: never[]) => (values.length === 0 ? isEmptyValid : check(values as never));
}

function itemRules(rules: FieldRules): FieldRules | null {
  return (rules.type.case === "repeated" ? rules.type.value.items : null) ?? null;
}

function elementCheck(type: DescMessage | null, rules: FieldRules | null, plans: Plans): Check | null {
  const checks = rules ? ruleChecks(rules) : [];
  // What is defined is known only beside the field; no list of ours is long enough to matter.
  if (rules?.type.case === "enum" && rules.type.value.definedOnly) return NEVER;
  if (type) checks.push(nested(type, plans));
  return checks.length === 0 ? null : allOf(checks);
}

function nested(type: DescMessage, plans: Plans): Check {
  const plan = planOf(type, plans);
  return (message: Fields) => plan.holds(message);
}

function allOf(checks: readonly Check[]): Check {
  const [first, second] = checks;
  if (first && !second) return first;
  return (value) => checks.every((check) => check(value));
}

// ── The constraints ────────────────────────────────────────────────────────────────────────────

type RuleTable = Readonly<Record<string, (limit: never) => Check>>;

const min = (limit: number | bigint) => (value: number | bigint) => value >= limit;
const max = (limit: number | bigint) => (value: number | bigint) => value <= limit;
const checkedElsewhere = () => () => true;
const INTEGER: RuleTable = { gte: min, lte: max };

const TABLES: Readonly<Record<string, RuleTable>> = {
  int32: INTEGER,
  int64: INTEGER,
  uint32: INTEGER,
  uint64: INTEGER,
  string: {
    len: (count: bigint) => (text: string) =>
      text.length <= 2 * Number(count) && [...text].length === Number(count),
    // Characters are at most twice as many units of UTF-16.
    min_len: (count: bigint) => (text: string) =>
      count === 1n ? text !== "" : text.length >= 2 * Number(count),
    max_len: (count: bigint) => (text: string) => text.length <= count,
    max_bytes: (bytes: bigint) => (text: string) =>
      text.length * 3 <= bytes || Buffer.byteLength(text) <= bytes,
    in: (texts: string[]) => (text: string) => texts.includes(text),
    pattern: (pattern: string) => {
      const regex = new RegExp(pattern, "u");
      return (text: string) => regex.test(text);
    },
  },
  bytes: { max_len: (count: bigint) => (bytes: Uint8Array) => bytes.byteLength <= count },
  enum: {
    defined_only: checkedElsewhere,
    in: (values: number[]) => (value: number) => values.includes(value),
    not_in: (values: number[]) => (value: number) => !values.includes(value),
  },
  repeated: {
    min_items: (count: bigint) => (values: unknown[]) => values.length >= count,
    max_items: (count: bigint) => (values: unknown[]) => values.length <= count,
    items: checkedElsewhere,
  },
  map: {
    max_pairs: (count: bigint) => (entries: Fields) => Object.keys(entries).length <= count,
    keys: checkedElsewhere,
    values: checkedElsewhere,
  },
  duration: {
    gte: (limit: Duration) => (value: Duration) => isPlain(value) && compare(value, limit) >= 0,
    lte: (limit: Duration) => (value: Duration) => isPlain(value) && compare(value, limit) <= 0,
  },
};

/** The longest that protobuf allows: 10,000 years. */
const MAX_DURATION_SECONDS = 315_576_000_000n;

function isPlain({ seconds, nanos }: Duration): boolean {
  return seconds >= 0n && seconds <= MAX_DURATION_SECONDS && nanos >= 0 && nanos < 1e9;
}

function compare(left: Duration, right: Duration): number {
  return left.seconds === right.seconds ? left.nanos - right.nanos : left.seconds < right.seconds ? -1 : 1;
}

const KNOWN_FIELD_RULES: readonly string[] = ["required", ...Object.keys(TABLES)];

/** Each rule that is set becomes a check; one that is not in the tables, the check that never holds. */
function ruleChecks(rules: FieldRules): Check[] {
  const isKnown = FieldRulesSchema.fields.every(
    (field) => !isFieldSet(rules, field) || KNOWN_FIELD_RULES.includes(field.name),
  );
  if (!isKnown || rules.$unknown) return [NEVER];
  const { case: kind, value } = rules.type;
  if (kind === undefined) return [];
  const table = TABLES[kind] ?? {};
  const reflected = reflect(FieldRulesSchema.field[kind].message as DescMessage, value as Message);
  if (value.$unknown) return [NEVER];
  const set = reflected.fields.filter((field) => reflected.isSet(field));
  return set.map(
    (field) => table[field.name]?.(valueOf(value as unknown as Fields, field) as never) ?? NEVER,
  );
}

function valueOf(message: Fields, { oneof, localName }: DescField): unknown {
  return oneof ? (message[oneof.localName] as { value?: unknown }).value : message[localName];
}
