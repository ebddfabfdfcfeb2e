/** What must hold in every run, as sentences: a violation names one of them. */

export const RULES = {
  two_live: "two attempts of one job never have processes that run at the same time",
  started_twice: "an attempt starts its command at most once",
  second_job: "a worker that takes one job starts no other one",
  stale_taken: "only the valid attempt of a job changes it",
  given_up_alive: "an attempt is given up for another only when none of its processes runs any more",
  ended_alive: "an attempt ends with another cause than worker_lost only when its processes are gone",
  false_success: "a job succeeds only if its attempt ran to exit code 0",
  lost_for_nothing: "without any fault no attempt is lost",
  broken_for_nothing: "a worker is called broken only if it cannot end a process",
  early_timeout: "a job times out only after it has run that long, pauses not counted",
  log_changed: "a log holds the bytes that the command wrote, each once and in its place",
  log_lost: "a byte of log that was acknowledged is on the disk of the server",
  log_incomplete: "an attempt ends with its whole log on the disk of the server",
  log_needed: "a worker is not asked for log of a valid attempt that it was allowed to let go of",
  final_changed: "a final state changes by a retry by hand only",
  version_skipped: "each change adds one to the version of a job",
  over_budget: "a job is not retried more often than its policy allows",
  key_exceeded: "of the jobs with one concurrency key no more are at work than it allows",
  room_for_nothing: "only a job that allows it makes room, and only for one with a higher priority",
  deadline_passed: "no state outlives its deadline while the server can act",
  wish_ignored: "a job is frozen exactly if a pause is wanted, soon after all can talk to each other",
  does_not_end: "every job ends once the faults have stopped",
  left_behind: "nothing of the provider is left once no job needs it",
  processes_left: "no process is left when all jobs have ended",
  job_lost: "a job whose submission was answered exists",
  submitted_twice: "submissions with one idempotency key make one job",
  records_disagree: "job, attempts and events say the same",
  runs_away: "no part of the cluster is busy without end",
  crashed: "no part of the program throws what nobody catches",
} as const;

export type Rule = keyof typeof RULES;

export interface Violation {
  rule: Rule;
  details: string;
  atMs: number;
}
