// Private networks: who has the key of `swarm.key` is spoken with, and nobody else.
import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { preSharedKey } from '@libp2p/pnet'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, dial, helia } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

const CONTENT = bytes(31, 1_000_000)

/** A key in the format that Kubo, js-libp2p and cairn read. */
const keyOf = (byte) => `/key/swarm/psk/1.0.0/\n/base16/\n${byte.repeat(32)}\n`

const holding = (key) => ({ connectionProtector: preSharedKey({ psk: new TextEncoder().encode(key) }) })

async function withKey (test, key) {
  const repository = await Repository.make(test)
  const file = path.join(repository.path, 'swarm.key')
  await writeFile(file, key)
  await chmod(file, 0o600)
  return repository
}

test('who has the same key is spoken with, both ways', async (t) => {
  const repository = await withKey(t, keyOf('ab'))
  const daemon = await repository.daemon()
  const node = await helia(t, holding(keyOf('ab')))
  const cid = await unixfs(node).addBytes(CONTENT)
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  same(await repository.bytes('cat', cid.toString()), CONTENT, 'what cairn fetched')

  const other = await helia(t, holding(keyOf('ab')))
  await dial(other.libp2p, await daemon.addresses())
  const limit = { signal: AbortSignal.timeout(TRANSFER_MS_MAX) }
  same(await collect(unixfs(other).cat(cid, limit)), CONTENT, 'what Helia fetched')
})

test('who has another key, or none, is not', async (t) => {
  const repository = await withKey(t, keyOf('ab'))
  const daemon = await repository.daemon()
  for (const options of [holding(keyOf('cd')), {}]) {
    const stranger = await helia(t, options)
    await assert.rejects(dial(stranger.libp2p, await daemon.addresses()))
    const { code } = await repository.run(['swarm', 'connect', addressesOf(stranger.libp2p)[0]])
    assert.equal(code, 1)
  }
  assert.equal(await repository.ok('swarm', 'peers'), '')
})
