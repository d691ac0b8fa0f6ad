// Who dials whom, and over what: on every way both sides know each other and can fetch, whoever dialled.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { TLSSocket } from 'node:tls'
import { unixfs } from '@helia/unixfs'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { CID } from 'multiformats/cid'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { WAYS, addressesOf, dial, helia, libp2p, listensOn } from './lib/helia.js'
import { CONNECT_MS_MAX, TRANSFER_MS_MAX } from './lib/limits.js'

/** What the sockets of `@libp2p/tls` agreed on, which it tells nobody. */
const handshakes = []
const emit = TLSSocket.prototype.emit
TLSSocket.prototype.emit = function (event, ...details) {
  if (event === 'secure') {
    handshakes.push({ cipher: this.getCipher().name, version: this.getProtocol(), resumed: this.isSessionReused() })
  }
  return emit.call(this, event, ...details)
}

/** What cairn likes best: it decides as a server, and is followed as a client. */
const FASTEST = / (aes|pmull)\b/.test(readFileSync('/proc/cpuinfo', 'latin1'))
  ? 'TLS_AES_128_GCM_SHA256'
  : 'TLS_CHACHA20_POLY1305_SHA256'

const DIALLERS = {
  'Helia dials': async (node, repository, daemon) => await dial(node, await daemon.addresses()),
  'cairn dials': async (node, repository) => {
    const connected = once(node, 'connection:open', { signal: AbortSignal.timeout(CONNECT_MS_MAX) })
    await repository.ok('swarm', 'connect', addressesOf(node)[0])
    return (await connected)[0].detail
  }
}

for (const [way, { libp2p: made, encryption }] of Object.entries(WAYS)) {
  for (const [who, connect] of Object.entries(DIALLERS)) {
    test(`${who} over ${way}, and both fetch over the one connection`, async (t) => {
      const node = await helia(t, made)
      const repository = await Repository.make(t, listensOn(way))
      const daemon = await repository.daemon()
      handshakes.length = 0
      const connection = await connect(node.libp2p, repository, daemon)
      assert.equal(connection.direction, who === 'Helia dials' ? 'outbound' : 'inbound')
      assert.equal(connection.encryption, encryption)
      assert.equal(connection.multiplexer, '/yamux/1.0.0')
      assert.equal(connection.remotePeer.toString(), await daemon.peer())
      if (encryption === '/tls/1.0.0') {
        assert.deepEqual(handshakes, [{ cipher: FASTEST, version: 'TLSv1.3', resumed: false }])
      }

      const [ours, theirs] = [bytes(1, 3_000_000), bytes(2, 3_000_000)]
      const { stdout } = await repository.run(['add', '-Q'], { input: ours })
      const limit = { signal: AbortSignal.timeout(TRANSFER_MS_MAX) }
      const cid = (await unixfs(node).addBytes(theirs)).toString()
      const [taken, given] = await Promise.all([
        repository.bytes('cat', cid),
        collect(unixfs(node).cat(CID.parse(stdout.toString().trim()), limit))
      ])
      same(taken, theirs, 'what cairn fetched')
      same(given, ours, 'what Helia fetched')
      assert.deepEqual(node.libp2p.getConnections().map(({ id }) => id), [connection.id])
    })
  }

  test(`a peer is not taken for another over ${way}, whoever dials`, async (t) => {
    const node = await libp2p(t, made)
    const repository = await Repository.make(t, listensOn(way))
    const daemon = await repository.daemon()
    const another = peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toString()
    const renamed = (address) => address.replace(/\/p2p\/\w+$/, `/p2p/${another}`)
    const [listening] = await daemon.addresses()
    await assert.rejects(dial(node, [renamed(listening)]))
    const refused = await repository.run(['swarm', 'connect', renamed(addressesOf(node)[0])])
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, new RegExp(node.peerId.toString()))
    assert.equal(await repository.ok('swarm', 'peers'), '')
  })
}

for (const kind of ['Ed25519', 'secp256k1', 'RSA']) {
  test(`a peer with a key of ${kind} is known over TLS and Noise, whoever dials`, async (t) => {
    const privateKey = await generateKeyPair(kind)
    for (const way of ['TCP with Noise', 'TCP with TLS']) {
      for (const connect of Object.values(DIALLERS)) {
        const node = await libp2p(t, { ...WAYS[way].libp2p, privateKey })
        const repository = await Repository.make(t, listensOn(way))
        const daemon = await repository.daemon()
        const connection = await connect(node, repository, daemon)
        assert.equal(connection.encryption, WAYS[way].encryption)
        const peers = await repository.ok('swarm', 'peers')
        assert.match(peers, new RegExp(`/p2p/${node.peerId}$`))
      }
    }
  })
}

test('cairn chooses TLS where a peer has both', async (t) => {
  const both = [...WAYS['TCP with Noise'].libp2p.connectionEncrypters, ...WAYS['TCP with TLS'].libp2p.connectionEncrypters]
  const repository = await Repository.make(t)
  await repository.daemon()
  const node = await libp2p(t, { connectionEncrypters: both })
  const connection = await DIALLERS['cairn dials'](node, repository)
  assert.equal(connection.encryption, '/tls/1.0.0')
})
