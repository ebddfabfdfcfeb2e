/** `hodei resume`: lets paused jobs go on. */

import type { CliCommand } from "../command.ts";
import { addWishOptions, runWish } from "../job-wish.ts";

export const resumeCommand: CliCommand = {
  configure(command) {
    addWishOptions(command).addHelpText(
      "after",
      "\nAlso calls off a pause that was asked for and is not done yet.",
    );
  },
  run: (given, context) =>
    runWish(given, context, {
      name: "resume",
      ask: (connection, jobId) => connection.jobs.resumeJob({ jobId }),
      outcome(job) {
        if (job.pauseWanted) return { type: "refused", why: "somebody asked for a pause again" };
        return job.state === "paused" || job.state === "unreachable" ? null : { type: "done" };
      },
    }),
};
