// kubo-rpc-client: keys.
import assert from 'node:assert/strict'
import { argon2Sync, createDecipheriv, generateKeyPairSync, hkdfSync } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { after, test } from 'node:test'
import { generateKeyPair, privateKeyFromRaw, privateKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { base36 } from 'multiformats/bases/base36'
import { Repository } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

/** The names of all keys. */
const names = async () => (await ipfs.key.list()).map(({ name }) => name)

/** A key's name as a CID, as it is written without any choice. */
const cid = (key) => peerIdFromPrivateKey(key).toCID().toString(base36)

test('a key is made, listed, renamed and removed', async () => {
  const made = await ipfs.key.gen('first')
  assert.match(made.id, /^k51qzi5uqu5d/)
  assert.equal(made.name, 'first')
  const [own, first] = await ipfs.key.list({ ipnsBase: 'b58mh' })
  assert.deepEqual([own.name, own.id], ['self', await daemon.peer()])
  assert.match(first.id, /^12D3KooW/)
  assert.deepEqual(await ipfs.key.rename('first', 'second'), { was: 'first', now: 'second', id: made.id, overwrite: false })
  assert.deepEqual(await names(), ['self', 'second'])
  assert.deepEqual(await ipfs.key.rm('second'), { name: 'second', id: made.id })
  assert.deepEqual(await names(), ['self'])
})

test('keys of every kind are made', async () => {
  for (const [type, size] of [['ed25519', undefined], ['rsa', 2048], ['secp256k1', undefined]]) {
    const { id } = await ipfs.key.gen(type, { type, size })
    assert.ok(id.startsWith('k'), id)
    assert.equal((await ipfs.key.rm(type)).id, id)
  }
  await assert.rejects(ipfs.key.gen('x', { type: 'dsa' }), failure(500, /^unrecognized key type/))
  await assert.rejects(ipfs.key.gen('x', { type: 'rsa', size: 1024 }), failure(500, /^invalid key size 1024/))
})

test('names are not taken twice, and the own one is left alone', async () => {
  await ipfs.key.gen('a')
  const b = await ipfs.key.gen('b')
  await assert.rejects(ipfs.key.gen('a'), failure(500, /^key with name 'a' already exists/))
  await assert.rejects(ipfs.key.rename('b', 'a'), failure(500, /^key with name 'a' already exists/))
  await assert.rejects(ipfs.key.gen('self'), failure(500, /^cannot create key with name 'self'/))
  await assert.rejects(ipfs.key.rm('self'), failure(500, /^cannot remove key with name 'self'/))
  await assert.rejects(ipfs.key.rename('self', 'c'), failure(500, /^cannot rename key with name 'self'/))
  await assert.rejects(ipfs.key.rename('a', 'self', { force: true }), failure(500, /^cannot overwrite key with name 'self'/))
  await assert.rejects(ipfs.key.rm('nobody'), failure(500, /^no key named nobody was found/))
  assert.deepEqual(await ipfs.key.rename('b', 'a', { force: true }), { was: 'b', now: 'a', id: b.id, overwrite: true })
  await ipfs.key.rm('a')
})

test('a PEM text is imported', async () => {
  const { privateKey } = generateKeyPairSync('ed25519')
  const { d, x } = privateKey.export({ format: 'jwk' })
  const key = privateKeyFromRaw(Buffer.concat([Buffer.from(d, 'base64url'), Buffer.from(x, 'base64url')]))
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  assert.deepEqual(await ipfs.key.import('pem', pem), { name: 'pem', id: cid(key) })
  await assert.rejects(ipfs.key.import('pem', pem), failure(500, /^key with name 'pem' already exists/))
  await assert.rejects(ipfs.key.import('cut', pem.slice(0, 80)), failure(500, /damaged PEM text/))
  await ipfs.key.rm('pem')
})

test("js-libp2p's keys are imported and exported", async () => {
  for (const type of ['Ed25519', 'secp256k1', 'RSA', 'ECDSA']) {
    const key = await generateKeyPair(type)
    const protobuf = Buffer.from(privateKeyToProtobuf(key))
    const imported = await repository.run(['key', 'import', type, '-', '--allow-any-key-type'], { input: protobuf })
    assert.equal(imported.code, 0, imported.stderr)
    // It makes no peer ID of an ECDSA key.
    if (type !== 'ECDSA') assert.equal(String(imported.stdout).trim(), cid(key), type)
    const file = `${repository.path}/${type}.key`
    await repository.ok('key', 'export', type, '-o', file)
    assert.deepEqual(await readFile(file), protobuf, type)
    await ipfs.key.rm(type)
  }
})

/** The private key in a sealed file, opened as docs/on-disk-format.md says. */
function opened (file, secretOf) {
  assert.equal(file.toString('latin1', 0, 8), 'cairnkey')
  const [format, sealing] = file.subarray(8, 10)
  assert.equal(format, 1)
  let at = 10
  const take = (length) => file.subarray(at, at += length)
  const publicKey = take(take(2).readUInt16BE())
  const cost = sealing === 1 ? { memory: take(4).readUInt32BE(), passes: take(4).readUInt32BE(), nonce: take(16) } : undefined
  const salt = take(32)
  const length = take(2).readUInt16BE()
  const head = file.subarray(0, at)
  const [sealed, tag] = [take(length - 16), take(16)]
  assert.equal(file.length, at + 4)
  const key = Buffer.from(hkdfSync('sha256', secretOf(cost), salt, 'cairn keystore 1', 32))
  const cipher = createDecipheriv('chacha20-poly1305', key, Buffer.alloc(12), { authTagLength: 16 })
  cipher.setAAD(head, { plaintextLength: sealed.length })
  cipher.setAuthTag(tag)
  return { sealing, publicKey, privateKey: Buffer.concat([cipher.update(sealed), cipher.final()]) }
}

test('sealed files are as they are documented', async (t) => {
  const other = await Repository.make(t)
  const secret = Buffer.alloc(40, 7)
  await writeFile(`${other.path}/secret`, secret, { mode: 0o600 })
  await writeFile(`${other.path}/words`, 'correct horse\n', { mode: 0o600 })
  const byPassphrase = ({ memory, passes, nonce }) => {
    assert.deepEqual([memory, passes], [64 << 10, 3])
    return argon2Sync('argon2id', { message: 'correct horse', nonce, parallelism: 1, tagLength: 32, memory, passes })
  }
  for (const [key, file, sealed, secretOf] of [
    ['passphrase_file', 'words', 1, byPassphrase],
    ['key_file', 'secret', 2, () => secret]
  ]) {
    await other.ok('config', 'set', `keystore.${key}`, file)
    await other.ok('key', 'gen', 'me')
    const { sealing, publicKey, privateKey } = opened(await readFile(`${other.path}/keystore/key_nvsq`), secretOf)
    assert.equal(sealing, sealed)
    assert.deepEqual(privateKey, await other.bytes('key', 'export', 'me', '-o', '-'))
    assert.deepEqual(privateKey.subarray(-32), publicKey.subarray(-32))
    await other.ok('key', 'rm', 'me')
  }
})
