// The gateway's pages in real Chromium: names that would be markup, and roots that must not see each other.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { Repository, folder } from './lib/cairn.js'
import { COMMAND_MS_MAX } from './lib/limits.js'

const run = promisify(execFile)
const chromium = await run('sh', ['-c', 'command -v chromium || command -v chromium-browser']).then(
  ({ stdout }) => stdout.trim(), () => undefined)
const skip = chromium === undefined && 'Chromium is not installed (Debian: apt-get install chromium)'

const repository = skip ? undefined : await Repository.make({ after })
const daemon = skip ? undefined : await repository.daemon()
const gateway = skip ? undefined : new URL(await daemon.gateway())

/** What a page is once its scripts have run. */
async function page (test, url) {
  const profile = await folder(test)
  const { stdout } = await run(chromium, [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    `--user-data-dir=${profile}`, `--virtual-time-budget=${VIRTUAL_MS}`, '--dump-dom', url
  ], { timeout: COMMAND_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX })
  return stdout
}

/** Adds files, by their names; the CID of the folder. */
async function added (test, files) {
  const top = path.join(await folder(test), 'site')
  await mkdir(top)
  for (const [name, content] of Object.entries(files)) await writeFile(path.join(top, name), content)
  return await repository.ok('add', '-r', '-Q', top)
}

const html = (script) => `<!DOCTYPE html><meta charset="utf-8"><title>quiet</title><body><script>${script}</script>`

test('a script in content runs, so that one in a name would be seen', { skip }, async (test) => {
  const root = await added(test, { 'page.html': html("document.title = 'o' + 'wned'") })
  assert.match(await page(test, `${gateway.origin}/ipfs/${root}/page.html`), /<title>owned<\/title>/)
})

test('names, addresses and documents are text on every page of ours', { skip }, async (test) => {
  const evil = [
    "<img src=x onerror=\"document.title='o'+'wned'\">",
    "\"><script>document.title='o'+'wned'<\x2fscript>".replaceAll('/', '\u2215'),
    "'onmouseover='document.title=1",
    'javascript:alert(1)',
    '<svg onload=alert(1)>',
    '\u202egnp.exe'
  ]
  const root = await added(test, Object.fromEntries(evil.map((name) => [name, 'x'])))
  const put = ['dag', 'put', '--input-codec', 'dag-json', '--store-codec', 'dag-json']
  const document = JSON.stringify(Object.fromEntries(evil.map((name) => [name, name])))
  const { stdout } = await repository.run(put, { input: document })
  const cid = stdout.toString().trim()
  const below = encodeURIComponent(evil[0])
  for (const address of [`/ipfs/${root}/`, `/ipfs/${root}/${below}/none`, `/ipfs/${below}`, `/${below}`, `/ipfs/${cid}`]) {
    const dom = await page(test, gateway.origin + address)
    assert.match(dom, /onerror|&lt;img|%3Cimg/i, `${address} shows it`)
    assert.doesNotMatch(dom, /owned<\/title>/, address)
    // What is left of the page without its text has no element that a name made.
    assert.doesNotMatch(dom, /<(img|script|svg)[\s>]/i, address)
    assert.doesNotMatch(dom, /<[^>]*\s(onerror|onmouseover|onload)=/i, address)
    assert.doesNotMatch(dom, /href="javascript:/i, address)
  }
})

test('one root cannot read what another keeps in the browser', { skip }, async (test) => {
  const found = html(`
    let seen
    try { seen = parent.document.title } catch (error) { seen = error.name }
    parent.postMessage('found ' + localStorage.getItem('secret') + ', title ' + seen, '*')`)
  const other = await added(test, { 'found.html': found })
  const asks = (address) => html(`
    localStorage.setItem('secret', 'mine')
    addEventListener('message', ({ data }) => { document.body.append(data) })
    const frame = document.createElement('iframe')
    frame.src = '${address}'
    document.body.append(frame)`)
  const byPath = `${gateway.origin}/ipfs/${other}/found.html`
  const byHost = `http://${other}.ipfs.localhost:${gateway.port}/found.html`
  const root = await added(test, { 'path.html': asks(byPath), 'host.html': asks(byHost) })
  // Under one host they share everything: that is what hosts are for.
  assert.match(await page(test, `${gateway.origin}/ipfs/${root}/path.html`), /found mine, title quiet/)
  const apart = await page(test, `http://${root}.ipfs.localhost:${gateway.port}/host.html`)
  assert.match(apart, /found null, title SecurityError/)
})

/** Time as the page sees it, which goes on as fast as it has something to do. */
const VIRTUAL_MS = 5000
const OUTPUT_BYTES_MAX = 16 << 20
