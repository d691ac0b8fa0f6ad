// `/perf/1.0.0` as its specification has it, written here by hand: the registry has no `@libp2p/perf`.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { bytes } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { WAYS, addressesOf, dial, libp2p, listensOn } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

const PERF = '/perf/1.0.0'
const PIECE = bytes(1, 64 << 10)
const [UPLOAD, DOWNLOAD] = [5_000_001, 7_000_003]

const limit = () => ({ signal: AbortSignal.timeout(TRANSFER_MS_MAX) })

/** Sends so many bytes, as fast as they are taken. */
async function pour (stream, count) {
  for (let left = count; left > 0; left -= PIECE.length) {
    if (!stream.send(PIECE.subarray(0, Math.min(left, PIECE.length)))) await stream.onDrain(limit())
  }
}

/** Asks for `download` bytes while it sends `upload`; gives how many came. */
async function ask (connection, upload, download) {
  const stream = await connection.newStream(PERF, limit())
  let came = 0
  stream.addEventListener('message', ({ data }) => { came += data.byteLength })
  const ended = once(stream, 'remoteCloseWrite', limit())
  const wanted = Buffer.alloc(8)
  wanted.writeBigUInt64BE(BigInt(download))
  stream.send(wanted)
  await pour(stream, upload)
  await stream.close(limit())
  await ended
  return came
}

/** Answers; `asked` holds what was asked for and what came. */
async function answer (node) {
  const asked = []
  await node.handle(PERF, async (stream) => {
    const head = []
    let came = 0
    // Not `remoteCloseWrite`: that may have happened before anybody is told of the stream.
    const ended = once(stream, 'end', limit())
    stream.addEventListener('message', ({ data }) => {
      if (came < 8) head.push(Buffer.from(data.subarray()))
      came += data.byteLength
    })
    await ended
    const download = Number(Buffer.concat(head).readBigUInt64BE())
    asked.push({ upload: came - 8, download })
    await pour(stream, download)
    await stream.close(limit())
  })
  return asked
}

for (const [way, { libp2p: made }] of Object.entries(WAYS)) {
  test(`js-libp2p measures the path to cairn over ${way}`, async (t) => {
    const repository = await Repository.make(t, listensOn(way))
    const daemon = await repository.daemon()
    const node = await libp2p(t, made)
    const connection = await dial(node, await daemon.addresses())
    assert.equal(await ask(connection, UPLOAD, DOWNLOAD), DOWNLOAD)
    assert.equal(await ask(connection, UPLOAD, 0), 0)
    assert.equal(await ask(connection, 0, DOWNLOAD), DOWNLOAD)
  })

  test(`cairn measures the path to js-libp2p over ${way}`, async (t) => {
    const repository = await Repository.make(t, listensOn(way))
    await repository.daemon()
    const node = await libp2p(t, made)
    const asked = await answer(node)
    const measure = async (upload, download) => {
      asked.length = 0
      await repository.ok('diag', 'perf', addressesOf(node)[0], '--upload', String(upload), '--download', String(download))
      const sum = (name) => asked.reduce((sum, one) => sum + one[name], 0)
      assert.deepEqual([sum('upload'), sum('download')], [upload, download])
    }
    await measure(UPLOAD, DOWNLOAD)
    await measure(UPLOAD, 0)
    // The end of so short a question comes right behind it.
    await measure(0, DOWNLOAD)
  })
}
