// Helia without peers: its broker of blocks over HTTP knows cairn's gateway and nobody else.
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { withHTTP } from '@helia/http'
import { unixfs } from '@helia/unixfs'
import * as dagCbor from '@ipld/dag-cbor'
import * as dagJson from '@ipld/dag-json'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'
import { sha512 } from 'multiformats/hashes/sha2'
import { between } from './lib/between.js'
import { all, bytes, collect, longNames, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { CALL_MS_MAX } from './lib/limits.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const gateway = await daemon.gateway()

/** Helia with the gateway at `url` for all it asks, and codecs and hashes beyond its own. It stops when `test` ends. */
async function helia (test, url = gateway) {
  const bare = createHeliaLight({ codecs: [dagCbor, dagJson], hashers: [sha512] })
  const http = { delegatedRouters: [url], recursiveGateways: [url], allowInsecure: true, allowLocal: true }
  const node = await withHTTP(bare, http).start()
  test.after(() => node.stop())
  return node
}

const limit = () => ({ signal: AbortSignal.timeout(CALL_MS_MAX) })
const cat = (node, cid, options) => collect(unixfs(node).cat(CID.parse(cid), { ...limit(), ...options }))

/** Runs the program on `input`, which must succeed; gives the CID that it prints. */
async function made (args, input) {
  const { code, stdout, stderr } = await repository.run(args, { input })
  assert.equal(code, 0, stderr)
  return stdout.toString().trim()
}

/** Writes files, adds them as a folder, and gives its CID. */
async function addFolder (test, files) {
  const source = path.join(await folder(test), 'source')
  for (const [name, content] of files) {
    await mkdir(path.join(source, path.dirname(name)), { recursive: true })
    await writeFile(path.join(source, name), content)
  }
  return await repository.ok('add', '-r', '-Q', source)
}

test('files of a folder are read by their paths', async (t) => {
  const files = tree(900)
  const cid = await addFolder(t, files)
  const node = await helia(t)
  for (const [name, content] of files) same(await cat(node, cid, { path: name }), content, name)
  const listed = await all(unixfs(node).ls(CID.parse(cid), limit()))
  assert.deepEqual(listed.map(({ name }) => name).sort(), [...new Set([...files.keys()].map((name) => name.split('/')[0]))].sort())
})

test('an entry of a folder in shards is read', async (t) => {
  const names = longNames()
  const cid = await addFolder(t, names.map((name) => [name, name]))
  const node = await helia(t)
  for (const name of [names[1], names[500], names[998]]) assert.equal((await cat(node, cid, { path: name })).toString(), name)
})

for (const codec of ['dag-cbor', 'dag-json']) {
  test(`a graph of ${codec} is pinned with all that it links to`, async (t) => {
    const content = bytes(910, 2_500_000)
    const file = await made(['add', '-Q'], content)
    const inner = await made(['dag', 'put', '--store-codec', codec], JSON.stringify({ file: { '/': file } }))
    const outer = await made(['dag', 'put', '--store-codec', codec], JSON.stringify({ inner: [{ '/': inner }] }))
    const { url, asked } = await between(t, gateway)
    const node = await helia(t, url)
    const pinned = await all(node.pins.add(CID.parse(outer), limit()))
    const leaves = (await repository.ok('refs', file)).split('\n')
    const whole = [outer, inner, file, ...leaves].sort()
    assert.deepEqual(pinned.map(String).sort(), whole)
    const blocks = asked.filter((request) => request.startsWith('GET /ipfs/'))
    assert.deepEqual(blocks.sort(), whole.map((cid) => `GET /ipfs/${cid}?format=raw`).sort(), 'each was asked for once')
    same(await cat(node, file, { offline: true }), content, 'the file, from what Helia keeps')
  })
}

test('blocks of another hash are taken', async (t) => {
  const content = bytes(920, 2_500_000)
  const cid = await made(['add', '-Q', '--hash=sha2-512'], content)
  assert.equal(CID.parse(cid).multihash.code, sha512.code)
  same(await cat(await helia(t), cid), content, 'the file')
})

test('a block that was changed is not taken', async (t) => {
  const cid = await made(['add', '-Q'], bytes(930, 1000))
  const liar = await between(t, gateway, (body, path) => path.startsWith('/ipfs/') ? body.map((byte) => byte ^ 1) : body)
  const node = await helia(t, liar.url)
  await assert.rejects(cat(node, cid), { name: 'LoadBlockFailedError' })
  assert.ok(liar.asked.includes(`GET /ipfs/${cid}?format=raw`), `${liar.asked}`)
  assert.equal(await node.blockstore.has(CID.parse(cid)), false)
  const honest = await between(t, gateway)
  assert.equal((await cat(await helia(t, honest.url), cid)).length, 1000)
})
