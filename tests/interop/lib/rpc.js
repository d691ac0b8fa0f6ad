// kubo-rpc-client against a daemon's RPC.
import { create } from 'kubo-rpc-client'
import { CALL_MS_MAX } from './limits.js'

/** A client of a daemon. */
export async function client (daemon) {
  return create({ url: await daemon.rpc(), timeout: CALL_MS_MAX })
}

/** What `assert.rejects` takes for an answer that is an error. */
export function failure (status, message) {
  return (error) => {
    const told = `${error.name} ${error.response?.status}: ${error.message}`
    if (error.name !== 'HTTPError') throw new Error(`not an answer of the RPC: ${told}`, { cause: error })
    if (error.response.status !== status) throw new Error(`not status ${status}: ${told}`)
    if (!(message instanceof RegExp ? message.test(error.message) : message === error.message)) {
      throw new Error(`not ${message}: ${told}`)
    }
    return true
  }
}
