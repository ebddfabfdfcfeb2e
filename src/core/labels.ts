/**
 * Labels, and what is asked of them: selectors of jobs, taints of workers and what tolerates them.
 */

export const LABEL_OPERATORS = ["in", "not_in", "exists", "not_exists", "gt", "lt"] as const;
export type LabelOperator = (typeof LABEL_OPERATORS)[number];

/**
 * One condition on labels. `in` and `not_in` have at least one value, `exists` and `not_exists` none,
 * `gt` and `lt` exactly one, a whole number: a label that is no number fulfils neither. `not_in` is
 * also fulfilled where there is no such label.
 */
export interface LabelRequirement {
  key: string;
  operator: LabelOperator;
  values: string[];
}

export const TAINT_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"] as const;
/**
 * What a taint does to a job that does not tolerate it: it is not placed there, it is placed there only
 * if no other worker fits, or it is also moved away if it runs there already.
 */
export type TaintEffect = (typeof TAINT_EFFECTS)[number];

export interface Taint {
  key: string;
  value: string;
  effect: TaintEffect;
}

/** Which taints a job accepts. An empty key stands for any, `effect: null` for each of them. */
export interface Toleration {
  key: string;
  operator: "equal" | "exists";
  value: string;
  effect: TaintEffect | null;
}
