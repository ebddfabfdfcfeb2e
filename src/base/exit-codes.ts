/** Exit codes by which the processes of a worker tell those that started them what to do next. */

/**
 * Of an agent that left because it has no place any more: its token was refused, its session is not
 * known, it cannot be set up. To start it again would end in the same way. (EX_CONFIG of sysexits.h.)
 */
export const AGENT_REFUSED = 78;
