/** What a job asks of its worker, and what keeps jobs away from one, between the wire and the core. */

import { create } from "@bufbuild/protobuf";
import type { ConcurrencyLimit, JobDefinition, PlacementPreference } from "../core/job.ts";
import type { LabelOperator, LabelRequirement, Taint, TaintEffect, Toleration } from "../core/labels.ts";
import * as pb from "./gen/hodei/v1/jobs_pb.ts";
import { TaintSchema, type Taint as PbTaint } from "./gen/hodei/v1/workers_pb.ts";
import { inverse } from "./inverse.ts";

const LABEL_OPERATOR_NUMBER: Record<LabelOperator, pb.LabelOperator> = {
  in: pb.LabelOperator.IN,
  not_in: pb.LabelOperator.NOT_IN,
  exists: pb.LabelOperator.EXISTS,
  not_exists: pb.LabelOperator.NOT_EXISTS,
  gt: pb.LabelOperator.GT,
  lt: pb.LabelOperator.LT,
};
const labelOperatorName = inverse(LABEL_OPERATOR_NUMBER);

type PlacementFields = Pick<
  JobDefinition,
  "selectorExpressions" | "tolerations" | "capabilities" | "preferences" | "concurrency" | "preemptible"
>;

/** The fields of a `JobDefinition` message. */
export function placementToWire(placement: PlacementFields) {
  return {
    selectorExpressions: placement.selectorExpressions.map(requirementToWire),
    tolerations: placement.tolerations.map(tolerationToWire),
    capabilities: placement.capabilities,
    preferences: placement.preferences.map(preferenceToWire),
    ...(placement.concurrency ? { concurrency: placement.concurrency } : {}),
    preemptible: placement.preemptible,
  };
}

export function requirementFromWire(message: pb.LabelRequirement): LabelRequirement {
  // The constraints let no other operator through.
  return {
    key: message.key,
    operator: labelOperatorName(message.operator) ?? "exists",
    values: message.values,
  };
}

function requirementToWire({ key, operator, values }: LabelRequirement): pb.LabelRequirement {
  return create(pb.LabelRequirementSchema, { key, operator: LABEL_OPERATOR_NUMBER[operator], values });
}

export function tolerationFromWire(message: pb.Toleration): Toleration {
  return {
    key: message.key,
    operator: message.exists ? "exists" : "equal",
    value: message.value,
    effect: message.effect === "" ? null : (message.effect as TaintEffect),
  };
}

function tolerationToWire({ key, operator, value, effect }: Toleration): pb.Toleration {
  return create(pb.TolerationSchema, { key, exists: operator === "exists", value, effect: effect ?? "" });
}

export function preferenceFromWire(message: pb.PlacementPreference): PlacementPreference {
  return {
    weight: message.weight,
    workerLabels: message.workerLabels.map(requirementFromWire),
    jobLabels: message.jobLabels,
  };
}

function preferenceToWire({ weight, workerLabels, jobLabels }: PlacementPreference): pb.PlacementPreference {
  const requirements = workerLabels.map(requirementToWire);
  return create(pb.PlacementPreferenceSchema, { weight, workerLabels: requirements, jobLabels });
}

export function concurrencyFromWire({ key, limit }: pb.ConcurrencyLimit): ConcurrencyLimit {
  return { key, limit: limit || 1 };
}

export function taintFromWire({ key, value, effect }: PbTaint): Taint {
  return { key, value, effect: effect as TaintEffect };
}

export function taintToWire({ key, value, effect }: Taint): PbTaint {
  return create(TaintSchema, { key, value, effect });
}
