// The program under test: run to its end, or as a daemon.
import './loopback.js'
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { CALL_MS_MAX, COMMAND_MS_MAX, START_MS_MAX, STOP_MS_MAX } from './limits.js'

const program = process.env.CAIRN
assert.ok(program, 'CAIRN names the program under test; start the tests with tests/interop/run')

/** What is told on standard error unless CAIRN_LOG says otherwise. */
const LOG = 'warn'

// No program outlives the tests, even when they are cut off.
const running = new Set()
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')))
for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]]) process.once(signal, () => process.exit(code))

/** A temporary folder that goes when `test` ends. */
export async function folder (test) {
  const made = await temporary()
  test.after(() => rm(made, { recursive: true, force: true }))
  return made
}

const temporary = () => mkdtemp(path.join(os.tmpdir(), 'cairn-interop-'))

/** An initialised repository in a temporary folder, listening on ports that the system chooses. */
export class Repository {
  /**
   * It goes when `test` ends, its daemon first: `test` is a test's context, or has a whole file's `after`.
   * Its daemon listens for peers on `swarm`.
   */
  static async make (test, swarm = '/ip4/127.0.0.1/tcp/0') {
    const repository = new Repository(await temporary())
    test.after(() => repository.#end())
    await repository.ok('init')
    await repository.ok('config', 'set', 'addresses.swarm', JSON.stringify([swarm]))
    for (const key of ['rpc', 'gateway']) {
      await repository.ok('config', 'set', `addresses.${key}`, '/ip4/127.0.0.1/tcp/0')
    }
    // Test machines are small.
    await repository.ok('config', 'set', 'storage.reserve', '0')
    return repository
  }

  constructor (path) {
    this.path = path
    this.daemons = []
  }

  /** Runs the program to its end; gives its exit code and what it wrote. */
  async run (args, { input = '', limit = COMMAND_MS_MAX } = {}) {
    const child = this.spawn(args, { signal: AbortSignal.timeout(limit), killSignal: 'SIGKILL' })
    child.stdin.on('error', () => {}) // It may end without reading all of it.
    child.stdin.end(input)
    const [stdout, stderr] = [[], []]
    child.stdout.on('data', (piece) => stdout.push(piece))
    child.stderr.on('data', (piece) => stderr.push(piece))
    const [code] = await once(child, 'close')
    return { code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }
  }

  /** Runs the program, which must succeed; gives its output as bytes. */
  async bytes (...args) {
    const done = await this.run(args)
    assert.equal(done.code, 0, `cairn ${args.join(' ')}: ${done.stderr}`)
    return done.stdout
  }

  /** Runs the program, which must succeed; gives its output as text. */
  async ok (...args) {
    return (await this.bytes(...args)).toString().trimEnd()
  }

  /** Starts the daemon and waits until it is ready. */
  async daemon () {
    const child = this.spawn(['daemon'], { stdio: ['ignore', 'pipe', 'inherit'] })
    const daemon = new Daemon(child, this)
    this.daemons.push(daemon)
    await daemon.ready
    return daemon
  }

  async #end () {
    for (const daemon of this.daemons) await daemon.kill()
    await rm(this.path, { recursive: true, force: true })
  }

  spawn (args, options) {
    const env = { CAIRN_LOG: LOG, ...process.env, CAIRN_PATH: this.path }
    const child = spawn(program, args, { ...options, env })
    running.add(child)
    child.once('exit', () => running.delete(child))
    return child
  }
}

/** A running daemon. */
class Daemon {
  constructor (child, repository) {
    this.child = child
    this.repository = repository
    this.ended = once(child, 'close')
    this.ready = this.#ready()
  }

  async #ready () {
    const heard = []
    const late = setTimeout(() => this.child.kill('SIGKILL'), START_MS_MAX)
    const lines = createInterface({ input: this.child.stdout })
    for await (const line of lines) {
      heard.push(line)
      if (!line.includes('Daemon is ready')) continue
      clearTimeout(late)
      this.child.stdout.resume()
      return
    }
    clearTimeout(late)
    assert.fail(`the daemon ended before it was ready: ${heard.join('\n')}`)
  }

  /** Where the RPC listens, as a URL. */
  async rpc () {
    return await this.#listens('api')
  }

  /** Where the gateway listens, as a URL. */
  async gateway () {
    return await this.#listens('gateway')
  }

  async #listens (file) {
    const address = (await readFile(path.join(this.repository.path, file), 'utf8')).trim()
    const [, ip4, ip, tcp, port] = address.split('/')
    assert.deepEqual([ip4, tcp], ['ip4', 'tcp'], address)
    return `http://${ip}:${port}`
  }

  /** Its peer ID. */
  async peer () {
    return await this.repository.ok('id', '-f', '<id>')
  }

  /** Its addresses over TCP and WebSocket, with its peer ID. */
  async addresses () {
    const addresses = (await this.repository.ok('id', '-f', '<addrs>')).split('\n')
    return addresses.filter((address) => /^\/ip4\/127\.[0-9.]+\/tcp\/\d+(\/ws)?\/p2p\/\w+$/.test(address))
  }

  /** What a figure of its metrics is at now. */
  async metric (name) {
    const answer = await fetch(`${await this.rpc()}/metrics`, { signal: AbortSignal.timeout(CALL_MS_MAX) })
    const line = (await answer.text()).split('\n').find((line) => line.startsWith(`${name} `))
    assert.ok(line, `there is no figure ${name}`)
    return Number(line.slice(name.length + 1))
  }

  /** Waits until it has ended by itself; gives its exit code. */
  async end () {
    const late = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS_MAX)
    const [code] = await this.ended
    clearTimeout(late)
    return code
  }

  /** Asks it to stop, as an operator does; gives its exit code. */
  async stop () {
    this.child.kill('SIGTERM')
    return await this.end()
  }

  async kill () {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL')
    await this.ended
  }
}
