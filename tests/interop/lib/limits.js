// How long anything may take before the test fails. Generous: none of them is reached when all is well.

/** One run of the program that moves little data. */
export const COMMAND_MS_MAX = 60_000
/** From starting a daemon to `Daemon is ready`. */
export const START_MS_MAX = 30_000
/** From asking a daemon to stop to its end. */
export const STOP_MS_MAX = 30_000
/** A transfer between peers, on a machine that is busy. */
export const TRANSFER_MS_MAX = 120_000
/** Dialling a peer, or waiting until it dialled us. */
export const CONNECT_MS_MAX = 20_000
/** A lookup or an announcement in the DHT. */
export const LOOKUP_MS_MAX = 30_000
/** One call of the RPC. */
export const CALL_MS_MAX = 30_000
/** How long a peer looks for what nobody has. */
export const IN_VAIN_MS = 2000
