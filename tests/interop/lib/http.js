// HTTP/1.1 over a stream of js-libp2p, written by hand: one request after the other.
import assert from 'node:assert/strict'
import { multiaddr } from '@multiformats/multiaddr'
import { CALL_MS_MAX, CONNECT_MS_MAX } from './limits.js'

export const HTTP = '/http/1.1'

/** A stream of requests to whoever listens on `addresses`, given as texts. */
export async function open (node, addresses) {
  const signal = AbortSignal.timeout(CONNECT_MS_MAX)
  return new Requests(await node.dialProtocol(addresses.map((address) => multiaddr(address)), HTTP, { signal }))
}

class Requests {
  #came = Buffer.alloc(0)
  #over = false
  #wake = () => {}

  constructor (stream) {
    this.stream = stream
    stream.addEventListener('message', ({ data }) => {
      this.#came = Buffer.concat([this.#came, Buffer.from(data.subarray())])
      this.#wake()
    })
    for (const end of ['remoteCloseWrite', 'close']) {
      stream.addEventListener(end, ({ error }) => {
        this.#over = true
        this.error ??= error
        this.#wake()
      })
    }
  }

  /** Asks, and gives status, headers by name, and body. */
  async ask (line, headers = {}) {
    this.send(line, headers)
    return await this.answer()
  }

  send (line, headers = {}) {
    const lines = Object.entries({ host: 'x', ...headers }).map(([name, value]) => `${name}: ${value}`)
    this.stream.send(Buffer.from(`${[`${line} HTTP/1.1`, ...lines].join('\r\n')}\r\n\r\n`))
  }

  async answer () {
    const [first, ...rest] = (await this.#until('\r\n\r\n')).split('\r\n')
    const headers = Object.fromEntries(rest.map((line) => line.split(/: (.*)/s).slice(0, 2)))
    const body = headers['transfer-encoding'] === 'chunked'
      ? await this.#chunks()
      : await this.#take(Number(headers['content-length'] ?? 0))
    return { status: Number(first.split(' ')[1]), headers, body }
  }

  /** Waits until nothing more comes; gives what was left over. */
  async end () {
    while (!this.#over) await this.#more()
    return this.#came
  }

  async #chunks () {
    const all = []
    for (;;) {
      const length = parseInt(await this.#until('\r\n'), 16)
      all.push(await this.#take(length))
      assert.equal(await this.#until('\r\n'), '')
      if (length === 0) return Buffer.concat(all)
    }
  }

  async #until (mark) {
    while (!this.#came.includes(mark)) await this.#needs()
    const at = this.#came.indexOf(mark)
    const before = this.#came.subarray(0, at).toString()
    this.#came = this.#came.subarray(at + mark.length)
    return before
  }

  async #take (length) {
    while (this.#came.length < length) await this.#needs()
    const taken = this.#came.subarray(0, length)
    this.#came = this.#came.subarray(length)
    return taken
  }

  async #needs () {
    if (this.#over) throw Object.assign(new Error('the answer broke off'), { cause: this.error })
    await this.#more()
  }

  async #more () {
    const { promise, resolve, reject } = Promise.withResolvers()
    const late = setTimeout(() => reject(new Error('nothing comes')), CALL_MS_MAX)
    this.#wake = resolve
    await promise
    clearTimeout(late)
  }
}
