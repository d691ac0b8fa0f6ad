// Content to send about: the same bytes for the same seed.
import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'

/** `length` bytes that do not compress and hold no repetition. */
export function bytes (seed, length) {
  const key = Buffer.alloc(16)
  key.writeUInt32BE(seed)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

/** Everything that a stream of pieces gives. */
export async function collect (pieces) {
  const all = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all)
}

/** Fails unless both hold the same bytes; says where they part without printing them. */
export function same (got, expected, what) {
  got = Buffer.from(got.buffer, got.byteOffset, got.byteLength)
  if (got.equals(expected)) return
  let at = 0
  while (at < got.length && got[at] === expected[at]) at++
  assert.fail(`${what}: ${got.length} bytes, expected ${expected.length}; they part at byte ${at}`)
}

/** Every item of an asynchronous sequence. */
export async function all (items) {
  const found = []
  for await (const item of items) found.push(item)
  return found
}

/** A folder's files by path, with sizes at which trees and messages change shape. */
export function tree (seed) {
  const sizes = {
    'empty': 0,
    'one byte': 1,
    'ein Wort – with a dash, 字.txt': 17,
    'below/1023': 1023, // asked for with WANT-HAVE, a peer may answer with the block itself
    'below/1024': 1024,
    'below/deeper/one-chunk': 1 << 20,
    'below/deeper/one-chunk-and-a-byte': (1 << 20) + 1,
    'below/deeper/three-chunks': (5 << 19) + 7
  }
  const entries = Object.entries(sizes).map(([path, size], at) => [path, bytes(seed + at, size)])
  return new Map(entries)
}

/** Names of files that take more room in a folder than one block of 256 KiB has: it is made in shards. */
export function longNames () {
  return Array.from({ length: 1000 }, (_, at) => `${'a name that takes its room in a folder '.repeat(6)}${at}`)
}

/** `content` as the importer takes it: an empty file is no piece at all. */
export async function * one (content) {
  if (content.length > 0) yield content
}
