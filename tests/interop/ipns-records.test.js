// Records of names without a network: what cairn signs is checked by Helia's code, and the other way.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { IPNSEntry, createIPNSRecord, ipnsSelector, ipnsValidator, multihashToIPNSRoutingKey } from '@helia/ipns'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'
import { Repository } from './lib/cairn.js'
import { bareHelia } from './lib/helia.js'

const CONTENT = '/ipfs/bafkqaaa'
const HOUR_MS = 3_600_000
const YEAR_HOURS = 365 * 24

const repository = await Repository.make({ after })
const { keychain } = bareHelia()

/** What Helia finds in a record, which it checks against the name. */
async function checked (name, record) {
  const key = multihashToIPNSRoutingKey(CID.parse(name, base36).multihash)
  return await ipnsValidator(key, record, keychain)
}

/** The name of a new key of Helia's, and what signs a record with it, changed by `change`, and gives its bytes. */
async function signer (type) {
  const key = await keychain.generateKey(randomUUID(), { type })
  const sign = async ({ value = CONTENT, sequence = 1n, lifetime = HOUR_MS, change = (it) => it, ...options } = {}) =>
    IPNSEntry.encode(change(await createIPNSRecord(key, value, sequence, lifetime, options)))
  return { name: key.publicKey.toCID().toString(base36), sign }
}

/** A daemon keeps what it is given for as long as it runs. */
async function running (test) {
  const daemon = await repository.daemon()
  test.after(() => daemon.stop())
}

/** Gives cairn a record of a name. */
const put = (name, record, ...more) => repository.run(['name', 'put', name, '-', ...more], { input: record })

test('what cairn signs holds for Helia, with keys of every kind', async (t) => {
  for (const type of ['ed25519', 'rsa', 'secp256k1']) {
    const name = await repository.ok('key', 'gen', '-t', type, type)
    for (const v1 of [true, false]) {
      await t.test(`${type}, ${v1 ? 'for all readers' : 'version 2 alone'}`, async () => {
        await repository.ok('name', 'publish', '--key', type, `--v1compat=${v1}`, '--resolve=false', '--allow-offline', '--ttl', '7s', `${CONTENT}/a path`)
        const record = await repository.bytes('name', 'get', name)
        const entry = await checked(name, record)
        assert.equal(entry.signatureV1 !== undefined, v1)
        assert.equal(entry.publicKey !== undefined, type === 'rsa')
        if (!v1) return
        assert.equal(Buffer.from(entry.value).toString(), `${CONTENT}/a path`)
        assert.equal(entry.ttl, 7_000_000_000n)
        const publicKey = await keychain.loadPublicKeyFromProtobuf(entry.publicKey ?? CID.parse(name, base36).multihash.digest)
        const signed = Buffer.concat([entry.value, entry.validity, Buffer.from('EOL')])
        assert.ok(await publicKey.verify(signed, entry.signatureV1), 'the signature of version 1')
      })
    }
  }
})

test('a record that holds for a hundred years, and the next one, which is newer for both', async () => {
  const name = await repository.ok('key', 'gen', 'long')
  const publish = ['name', 'publish', '--key', 'long', '--resolve=false', '--allow-offline']
  await repository.ok(...publish, '--lifetime', `${100 * YEAR_HOURS}h`, CONTENT)
  const first = await checked(name, await repository.bytes('name', 'get', name))
  const until = new Date(Buffer.from(first.validity).toString().replace(/(\.\d{3})\d*Z$/, '$1Z'))
  const years = (until - Date.now()) / HOUR_MS / YEAR_HOURS
  assert.ok(years > 99.9 && years <= 100, `${years} years`)
  await repository.ok(...publish, '--lifetime', '1h', CONTENT)
  const second = await checked(name, await repository.bytes('name', 'get', name))
  assert.equal(second.sequence, first.sequence + 1n)
  assert.equal(ipnsSelector(new Uint8Array(), [first, second]), 1)
  assert.equal(ipnsSelector(new Uint8Array(), [second, first]), 0)
})

test("Helia's records are taken in and given as they came", async (t) => {
  await running(t)
  const child = await signer('Ed25519')
  for (const type of ['Ed25519', 'RSA', 'secp256k1']) {
    for (const [what, options, value = CONTENT] of [
      ['both versions', {}],
      ['version 2 alone', { v1Compatible: false }],
      ['a path', {}, `${CONTENT}/a/ü 字`],
      ['another name', {}, `/ipns/${child.name}`],
      ['the highest number', { sequence: 2n ** 64n - 1n }],
      ['a number that no double has, and no time to live', { sequence: 2n ** 53n + 1n, ttlNs: 0n, v1Compatible: false }],
      ['fields of its own', { data: { _mine: [1, null, { of: 'any kind' }] } }]
    ]) {
      await t.test(`${type}: ${what}`, async () => {
        const { name, sign } = await signer(type)
        const record = await sign({ value, ...options })
        await checked(name, record)
        const done = await put(name, record, '--allow-offline')
        assert.equal(done.code, 0, done.stderr)
        assert.deepEqual(await repository.bytes('name', 'get', name), Buffer.from(record))
        assert.equal(await repository.ok('name', 'resolve', '--recursive=false', name), value)
      })
    }
  }
})

test('an older record does not take the place of a newer one', async (t) => {
  await running(t)
  const { name, sign } = await signer('Ed25519')
  const [older, newer] = [await sign({ sequence: 4n }), await sign({ sequence: 5n })]
  const taken = await put(name, newer, '--allow-offline')
  assert.equal(taken.code, 0, taken.stderr)
  const refused = await put(name, older, '--allow-offline')
  assert.equal(refused.code, 1, refused.stdout.toString())
  assert.match(refused.stderr, /a newer record of this name is known: its number is 5, this one's 4/)
  assert.deepEqual(await repository.bytes('name', 'get', name), Buffer.from(newer))
})

test('what does not hold is refused by both', async (t) => {
  const { name, sign } = await signer('Ed25519')
  const other = await signer('Ed25519')
  const flipped = (bytes) => bytes.map((byte, at) => at === 9 ? byte ^ 1 : byte)
  const cases = {
    'version 1 alone': [{ change: ({ data, signatureV2, ...rest }) => rest }, /without a signature of version 2/],
    'no signature of version 2': [{ change: ({ signatureV2, ...rest }) => rest }, /without a signature of version 2/],
    'no signed data': [{ change: ({ data, ...rest }) => rest }, /without a signature of version 2/],
    'a broken signature of version 2': [{ change: (it) => ({ ...it, signatureV2: flipped(it.signatureV2) }) }, /wrong signature/],
    'other signed data': [{ change: (it) => ({ ...it, data: flipped(it.data) }) }, /wrong signature|no usable/],
    'another value in version 1': [{ change: (it) => ({ ...it, value: Buffer.from('/ipfs/bafkqaaq') }) }, /whose value differs/],
    'another validity in version 1': [{ change: (it) => ({ ...it, validity: flipped(it.validity) }) }, /whose validity differs/],
    'another number in version 1': [{ change: (it) => ({ ...it, sequence: 2n }) }, /whose sequence differs/],
    'another time to live in version 1': [{ change: (it) => ({ ...it, ttl: 1n }) }, /whose TTL differs/],
    'a record that expired': [{ lifetime: -1 }, /that expired/],
    'more than 10 KiB': [{ data: { _mine: 'x'.repeat(10 << 10) } }, /larger than the limit/]
  }
  for (const [what, [options, reason]] of Object.entries(cases)) {
    await t.test(what, async () => {
      const record = await sign(options)
      await assert.rejects(checked(name, record))
      const done = await put(name, record, '--allow-offline')
      assert.equal(done.code, 1, done.stdout.toString())
      assert.match(done.stderr, reason)
    })
  }
  await t.test("another name's record", async () => {
    const record = await other.sign()
    await assert.rejects(checked(name, record))
    const done = await put(name, record, '--allow-offline')
    assert.equal(done.code, 1, done.stdout.toString())
    assert.match(done.stderr, /wrong signature/)
  })
})

test('what both sign is told alike', async () => {
  const { name, sign } = await signer('RSA')
  const record = await sign({ sequence: 5n, ttlNs: 60_000_000_000n })
  const done = await repository.run(['name', 'inspect', '-', '--verify', name], { input: record })
  assert.equal(done.code, 0, done.stderr)
  const told = Object.fromEntries(done.stdout.toString().trim().split('\n').map((line) => line.split(/:\s+/)))
  const entry = IPNSEntry.decode(record)
  assert.equal(told.Value, CONTENT)
  assert.equal(told.Validity, Buffer.from(entry.validity).toString())
  assert.equal(told.Sequence, '5')
  assert.equal(told.TTL, '60s')
  assert.equal(told['Signature Type'], 'V1+V2')
  assert.equal(told['Protobuf Size'], String(record.length))
  assert.equal(told.PublicKey, Buffer.from(entry.publicKey).toString('base64'))
  assert.equal(told.Valid, 'true')
})
