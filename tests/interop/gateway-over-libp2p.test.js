// The gateway over libp2p, asked by js-libp2p: what can be checked and is here already, and nothing else.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { CarReader } from '@ipld/car'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { WAYS, addressesOf, bitswapOf, dial, helia, libp2p, listensOn } from './lib/helia.js'
import { HTTP, open } from './lib/http.js'
import { CALL_MS_MAX } from './lib/limits.js'

const RAW = { accept: 'application/vnd.ipld.raw' }
const CAR = { accept: 'application/vnd.ipld.car' }

/** A daemon that peers may ask. */
async function host (test, swarm) {
  const repository = await Repository.make(test, swarm)
  await repository.ok('config', 'set', 'gateway.libp2p', 'true')
  return { repository, daemon: await repository.daemon() }
}

async function add (repository, content) {
  const { code, stdout, stderr } = await repository.run(['add', '-Q'], { input: content })
  assert.equal(code, 0, stderr)
  return stdout.toString().trim()
}

/** Fails unless the bytes are those of the CID. */
async function check (cid, data) {
  assert.deepEqual((await sha256.digest(data)).bytes, cid.multihash.bytes, `${cid}`)
}

for (const [way, { libp2p: made }] of Object.entries(WAYS)) {
  test(`blocks and CARs come over one stream, over ${way}`, async (t) => {
    const { repository, daemon } = await host(t, listensOn(way))
    const content = bytes(1, 2_500_000)
    const file = await add(repository, content)
    const requests = await open(await libp2p(t, made), await daemon.addresses())
    const root = await requests.ask(`GET /ipfs/${file}`, RAW)
    assert.deepEqual([root.status, root.headers['content-type']], [200, RAW.accept])
    await check(CID.parse(file), root.body)
    const head = await requests.ask(`GET /ipfs/${file}`, { ...RAW, 'if-none-match': root.headers.etag })
    assert.deepEqual([head.status, head.body.length], [304, 0])
    const answer = await requests.ask(`GET /ipfs/${file}?format=car`)
    assert.equal(answer.status, 200)
    const car = await CarReader.fromBytes(answer.body)
    assert.deepEqual((await car.getRoots()).map(String), [file])
    let leaves = 0
    for await (const { cid, bytes } of car.blocks()) {
      await check(cid, bytes)
      if (cid.toString() === file) continue
      same(bytes, content.subarray(leaves << 20, (leaves + 1) << 20), `leaf ${leaves}`)
      leaves++
    }
    assert.equal(leaves, 3)
    const last = await requests.ask(`GET /ipfs/${file}?format=raw`, { connection: 'close' })
    await check(CID.parse(file), last.body)
    assert.equal((await requests.end()).length, 0)
    assert.equal(requests.error, undefined)
  })
}

test('what cannot be checked is refused, and hosts count for nothing', async (t) => {
  const { repository, daemon } = await host(t)
  const file = await add(repository, bytes(2, 1000))
  const requests = await open(await libp2p(t), await daemon.addresses())
  for (const [line, headers, status] of [
    [`GET /ipfs/${file}`, {}, 400],
    [`GET /ipfs/${file}`, { accept: 'text/html' }, 400],
    [`GET /ipfs/${file}?format=tar`, {}, 406],
    [`GET /ipns/example.com`, CAR, 400],
    [`GET /routing/v1/providers/${file}`, {}, 404],
    [`POST /ipfs/${file}`, RAW, 405],
    ['GET /', { host: `${file}.ipfs.localhost` }, 404],
    [`GET /ipfs/${file}`, { ...RAW, host: `${file}.ipfs.localhost` }, 200],
    [`GET http://example.com/ipfs/${file}`, RAW, 200]
  ]) {
    assert.equal((await requests.ask(line, headers)).status, status, `${line} ${JSON.stringify(headers)}`)
  }
  const { body } = await requests.ask('GET /.well-known/libp2p/protocols')
  assert.deepEqual(JSON.parse(body), { '/ipfs/gateway': { path: '/' } })
})

test('the record of a name that is here is given', async (t) => {
  const { repository, daemon } = await host(t)
  const file = await add(repository, bytes(3, 1000))
  const name = await repository.ok('name', 'publish', '-Q', '--allow-offline', `/ipfs/${file}`)
  const requests = await open(await libp2p(t), await daemon.addresses())
  const { status, headers, body } = await requests.ask(`GET /ipns/${name}?format=ipns-record`)
  assert.deepEqual([status, headers['content-type']], [200, 'application/vnd.ipfs.ipns-record'])
  assert.ok(body.includes(file))
})

test('nothing is fetched for a peer', async (t) => {
  const { repository, daemon } = await host(t)
  const other = await helia(t)
  const add = async (seed) => await unixfs(other).addBytes(bytes(seed, 1000))
  const [there, known] = [await add(4), await add(5)]
  const wanted = new Set()
  bitswapOf(other).network.addEventListener('bitswap:message', ({ detail: { message: { wantlist } } }) => {
    for (const { cid } of wantlist?.entries ?? []) wanted.add(CID.decode(cid).toV1().toString())
  })
  await repository.ok('swarm', 'connect', addressesOf(other.libp2p)[0])
  const requests = await open(await libp2p(t), await daemon.addresses())
  for (const headers of [RAW, CAR]) {
    const { status, body } = await requests.ask(`GET /ipfs/${there}`, headers)
    assert.equal(status, 404)
    assert.ok(body.toString().includes(`block ${there} is not here`), `${body}`)
  }
  // Whatever was asked of the other before would have come to it first.
  await repository.bytes('cat', known.toString())
  assert.deepEqual([...wanted], [known.toString()])
})

test('an answer that breaks off is a stream that is reset', async (t) => {
  const [{ repository, daemon }, source] = [await host(t), await Repository.make(t)]
  const file = await add(source, bytes(6, 2_500_000))
  const input = await source.bytes('block', 'get', file)
  const { stdout } = await repository.run(['block', 'put', '--cid-codec', 'dag-pb'], { input })
  assert.equal(stdout.toString().trim(), file)
  const requests = await open(await libp2p(t), await daemon.addresses())
  await assert.rejects(requests.ask(`GET /ipfs/${file}`, CAR), ({ message, cause }) => {
    assert.equal(message, 'the answer broke off')
    assert.equal(cause?.name, 'StreamResetError')
    return true
  })
})

test('a peer that has said all is answered', async (t) => {
  const { repository, daemon } = await host(t)
  const file = await add(repository, bytes(7, 100_000))
  const requests = await open(await libp2p(t), await daemon.addresses())
  requests.send(`GET /ipfs/${file}`, RAW)
  const [answer] = await Promise.all([requests.answer(), requests.stream.close({ signal: AbortSignal.timeout(CALL_MS_MAX) })])
  assert.equal(answer.status, 200)
  same(answer.body, bytes(7, 100_000), 'the block')
})

test('it is told of where it is on, and not spoken where it is off', async (t) => {
  const [{ daemon: on }, repository] = [await host(t), await Repository.make(t)]
  const off = await repository.daemon()
  const node = await libp2p(t)
  const told = async (daemon) => {
    const met = new Promise((resolve) => node.addEventListener('peer:identify', ({ detail }) => resolve(detail.protocols), { once: true }))
    await dial(node, await daemon.addresses())
    return (await met).includes(HTTP)
  }
  assert.equal(await told(on), true)
  assert.equal(await told(off), false)
  await assert.rejects(open(node, await off.addresses()), { name: 'UnsupportedProtocolError' })
})
