// Imported before anything that opens a socket: ends the process unless it can reach nobody.
import os from 'node:os'

if (Object.keys(os.networkInterfaces()).join() !== 'lo') {
  console.error('not in a namespace with loopback only; start the tests with tests/interop/run')
  process.exit(78)
}

/** Refuses to dial anything but this machine. */
export const connectionGater = {
  denyDialMultiaddr: (address) => !/^\/(ip4\/127\.|ip6\/::1\/)/.test(address.toString())
}
